/** Names beside numbers, for who wants them: of hosts, which the server looks up while they are seen, and of services. */

import { splitEndpoint } from "./format.js";
import { Refusal, get } from "./server.js";

const KEY = "ctweb.names";
/** Hosts that were seen; when there are more, it begins anew. */
const MOST = 5000;

/** @type {Map<string, string>} */
const hosts = new Map();
/** By protocol and port, `tcp/443`. @type {Record<string, string>} */
let services = {};

/** What this browser's user wants. */
export const wanted = { hosts: false, services: false };

/** The name of a host, "" without one or when names are not wanted. @param {string} address */
export const hostName = (address) => (wanted.hosts && hosts.get(address)) || "";

/** @param {string} protocol @param {string | number} port */
export const serviceName = (protocol, port) => (wanted.services && services[`${protocol}/${port}`]) || "";

/** The names of an end as a row has it, its host's and its service's. @param {string} end @param {string} protocol */
export function namesOf(end, protocol) {
  const [address, port] = splitEndpoint(end);
  return [hostName(address), port && serviceName(protocol, port)].filter(Boolean).join(" ");
}

/** What came with the rows. @param {Record<string, string>} found */
export function take(found) {
  if (hosts.size > MOST) hosts.clear();
  for (const [address, name] of Object.entries(found)) hosts.set(address, name);
}

/** As it was chosen in this browser before; off at first. */
export async function load() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "null");
    wanted.hosts = kept?.hosts === true;
    wanted.services = kept?.services === true;
  } catch {
    // What is not JSON is as good as nothing.
  }
  await fetchServices();
}

/** @param {Partial<typeof wanted>} change */
export async function choose(change) {
  Object.assign(wanted, change);
  localStorage.setItem(KEY, JSON.stringify(wanted));
  await fetchServices();
}

async function fetchServices() {
  if (!wanted.services || Object.keys(services).length) return;
  try {
    services = await get("/page/services");
  } catch (error) {
    // Numbers stay numbers.
    if (!(error instanceof Refusal)) throw error;
  }
}

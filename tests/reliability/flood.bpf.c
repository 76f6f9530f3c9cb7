/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Writes one packet after another, each from another sender, and sends it out of the interface that it is said to have come in by:
 * a TCP SYN or a UDP datagram. Run by PROG_TEST_RUN with live frames. */
#include "wire.h"

enum { LENGTH = 40, XDP_SENT_BACK = 3 };

/* Where it goes to. Written by user space. */
struct target {
	u8 mac[6];
	u16 pad;
	u32 network;		/* in the host's order; the last 16 bits are random */
	u32 udp_share;		/* of 256 */
};
BPF_TABLE("array", u32, struct target, target, 1);

struct packet {
	struct ethernet_header ethernet;
	struct ipv4_header ip;
	struct tcp_header tcp;
} __attribute__((packed));

int xdp_flood(struct xdp_md *xdp)
{
	struct packet *packet = (void *)(long)xdp->data;
	u32 zero = 0;
	struct target *to = target.lookup(&zero);

	if (!to || (void *)(packet + 1) > (void *)(long)xdp->data_end)
		return 1;
	u32 dice = bpf_get_prandom_u32(), ports = bpf_get_prandom_u32();
	u32 source = bpf_get_prandom_u32() % 0x5e000000 + 0x01000000, destination = to->network | (dice & 0xffff);
	bool udp = dice >> 24 < to->udp_share;

	__builtin_memset(packet, 0, sizeof(*packet));
	__builtin_memcpy(packet->ethernet.destination, to->mac, 6);
	packet->ethernet.type = hton16(ETHERTYPE_IPV4);
	packet->ip.version_words = 0x45;
	packet->ip.length = hton16(LENGTH);
	packet->ip.ttl = 64;
	packet->ip.protocol = udp ? PROTOCOL_UDP : PROTOCOL_TCP;
	packet->ip.source = hton32(source);
	packet->ip.destination = hton32(destination);
	u32 sum = 0x4500 + LENGTH + 0x4000 + packet->ip.protocol + (source >> 16) + (source & 0xffff) + (destination >> 16) +
		  (destination & 0xffff);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	packet->ip.checksum = ntoh16((u16)~sum);
	packet->tcp.source = ports;
	packet->tcp.destination = ports >> 16;
	if (udp) {
		struct udp_header *header = (void *)&packet->tcp;

		header->length = hton16(LENGTH - sizeof(packet->ip));
	} else {
		packet->tcp.seq = dice;
		packet->tcp.words = 0x50;
		packet->tcp.flags = TCP_SYN;
		packet->tcp.window = 0xffff;
	}
	return XDP_SENT_BACK;
}

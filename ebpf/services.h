/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* connection-type by the port that a connection is made to: the services that RouterOS knows. */
#ifndef CTWEB_SERVICES_H
#define CTWEB_SERVICES_H

static __always_inline u32 service_of(const struct packet *packet)
{
	const struct tuple *tuple = &packet->tuple;
	bool tcp = tuple->protocol == PROTOCOL_TCP, udp = tuple->protocol == PROTOCOL_UDP;

	if (!tcp && !udp)
		return TYPE_NONE;
	switch (ntoh16(packet->from_hi ? tuple->lo_port : tuple->hi_port)) {
	case 21:
		return tcp ? TYPE_FTP : TYPE_NONE;
	case 69:
		return udp ? TYPE_TFTP : TYPE_NONE;
	case 1720:
		return tcp ? TYPE_H323 : TYPE_NONE;
	case 1723:
		return tcp ? TYPE_PPTP : TYPE_NONE;
	case 5060:
		return TYPE_SIP;
	case 6667:
		return tcp ? TYPE_IRC : TYPE_NONE;
	case 27960:
		return udp ? TYPE_QUAKE3 : TYPE_NONE;
	}
	return TYPE_NONE;
}

/* Does a helper of ours (helpers.h) watch connections of this type? nf_conntrack's for PPTP knows no IPv6. */
static __always_inline bool is_watched(u32 type, const struct packet *packet)
{
	return type == TYPE_FTP || type == TYPE_TFTP || (type == TYPE_PPTP && packet->tuple.family == 4);
}

#endif

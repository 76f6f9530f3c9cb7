/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Headers as they are on the wire. Multi-byte fields are in network order, as their types say. */
#ifndef CTWEB_WIRE_H
#define CTWEB_WIRE_H

#define __always_inline inline __attribute__((always_inline))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

/* A read that is made where it stands: others write to the same memory at any time. */
#define READ_ONCE(x) (*(volatile typeof(x) *)&(x))
#define WRITE_ONCE(x, value) (*(volatile typeof(x) *)&(x) = (value))

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ntoh16(x) __builtin_bswap16(x)
#define ntoh32(x) __builtin_bswap32(x)
#define ntoh64(x) __builtin_bswap64(x)
#define hton16(x) ((__be16)((((x) & 0xff) << 8) | (((x) >> 8) & 0xff)))	/* folds for constants */
#define hton32(x) __builtin_bswap32(x)
#else
#define hton32(x) (x)
#define ntoh16(x) (x)
#define ntoh32(x) (x)
#define ntoh64(x) (x)
#define hton16(x) ((__be16)(x))
#endif

/* Is TCP sequence number a before b, with wrap-around? The shift is hidden from the compiler, which would make a test of bit 31 of
 * it, with a 64-bit constant each time. */
static __always_inline bool before(u64 a, u64 b)
{
	u64 distance = a - b;

	asm("%0 <<= 32" : "+r"(distance));
	return (s64)distance < 0;
}

enum ethertype {
	ETHERTYPE_IPV4 = 0x0800,
	ETHERTYPE_IPV6 = 0x86dd,
	ETHERTYPE_VLAN = 0x8100,
	ETHERTYPE_QINQ = 0x88a8,
	ETHERTYPE_PPPOE = 0x8864,
	PPP_IPV4 = 0x0021,
	PPP_IPV6 = 0x0057,
};

enum ip_protocol {
	PROTOCOL_HOPOPTS = 0,
	PROTOCOL_ICMP = 1,
	PROTOCOL_TCP = 6,
	PROTOCOL_UDP = 17,
	PROTOCOL_DCCP = 33,
	PROTOCOL_ROUTING = 43,
	PROTOCOL_FRAGMENT = 44,
	PROTOCOL_GRE = 47,
	PROTOCOL_AH = 51,
	PROTOCOL_ICMPV6 = 58,
	PROTOCOL_NONE = 59,
	PROTOCOL_DSTOPTS = 60,
	PROTOCOL_SCTP = 132,
	PROTOCOL_MOBILITY = 135,
	PROTOCOL_UDPLITE = 136,
};

struct ethernet_header {
	u8 destination[6];
	u8 source[6];
	__be16 type;
} __attribute__((packed));

struct vlan_header {
	__be16 tag;
	__be16 type;
};

struct pppoe_header {
	u8 version_type;	/* 0x11 */
	u8 code;		/* 0: session data */
	__be16 session;
	__be16 length;		/* of what follows, the PPP protocol field included */
	__be16 protocol;	/* PPP's own, uncompressed */
};

struct ipv4_header {
	u8 version_words;	/* version << 4 | header length in 32-bit words */
	u8 tos;
	__be16 length;		/* header and payload */
	__be16 id;
	__be16 fragment;	/* flags << 13 | offset in 8 bytes */
	u8 ttl;
	u8 protocol;
	__sum16 checksum;
	__be32 source;
	__be32 destination;
};
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV4_FRAGMENT_OFFSET 0x1fff

struct ipv6_header {
	__be32 version_class_label;
	__be16 payload;		/* all that follows this header; 0: jumbo */
	u8 next;
	u8 hops;
	__be32 source[4];
	__be32 destination[4];
};

struct ipv6_extension {
	u8 next;
	u8 length;		/* 8 bytes each, the first 8 not counted; AH: 4 bytes each, the first 8 not counted */
};

struct ipv6_fragment {
	u8 next;
	u8 reserved;
	__be16 offset;		/* offset in 8 bytes << 3 | more fragments */
	__be32 id;
};
#define IPV6_FRAGMENT_OFFSET 0xfff8
#define IPV6_MORE_FRAGMENTS 0x0001

struct ports {			/* how TCP, UDP, UDP-Lite, SCTP and DCCP begin */
	__be16 source;
	__be16 destination;
};

struct tcp_header {
	__be16 source;
	__be16 destination;
	__be32 seq;
	__be32 ack;
	u8 words;		/* header length in 32-bit words << 4 */
	u8 flags;
	__be16 window;
	__sum16 checksum;
	__be16 urgent;
};
enum tcp_flag { TCP_FIN = 0x01, TCP_SYN = 0x02, TCP_RST = 0x04, TCP_PSH = 0x08, TCP_ACK = 0x10, TCP_URG = 0x20 };

struct udp_header {
	__be16 source;
	__be16 destination;
	__be16 length;		/* header and payload; UDP-Lite: checksum coverage */
	__sum16 checksum;
};

struct gre_header {
	__be16 flags;		/* its lowest three bits: version */
	__be16 protocol;	/* ethertype of what it carries */
};
#define GRE_CHECKSUM 0x8000
#define GRE_ROUTING 0x4000
#define GRE_KEY 0x2000
#define GRE_VERSION 0x0007
enum { GRE_PPP = 0x880b };	/* what version 1 carries */

struct gre_key {		/* version 0: one number; version 1: length and call id */
	__be16 upper;
	__be16 lower;
};

struct icmp_header {
	u8 type;
	u8 code;
	__sum16 checksum;
	__be16 id;
	__be16 sequence;
};

#endif

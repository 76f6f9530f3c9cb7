/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The floor of floor.bpf.c over ctweb's own table: the same parsing, one lookup by find(), two atomic adds, a coarse clock. Compiled behind
 * the datapath's source and loaded over the maps of a running one, so that both see the same entries. The ends are put in order, for that is
 * how the table has them; nothing else is known of direction or state. */
struct floor_frame {
	struct ethernet_header ethernet;
	struct ipv4_header ip;
	struct tcp_header tcp;
} __attribute__((packed));

static __always_inline struct conn *floor_find(struct __sk_buff *skb, struct floor_frame **found)
{
	struct floor_frame *frame = (void *)(long)skb->data;

	if ((void *)(frame + 1) > (void *)(long)skb->data_end || frame->ethernet.type != hton16(ETHERTYPE_IPV4) ||
	    frame->ip.version_words != 0x45 || frame->ip.protocol != PROTOCOL_TCP)
		return 0;
	bool swap = ntoh32(frame->ip.source) > ntoh32(frame->ip.destination);
	struct tuple tuple = {
		.lo_addr[0] = swap ? frame->ip.destination : frame->ip.source,
		.hi_addr[0] = swap ? frame->ip.source : frame->ip.destination,
		.lo_port = swap ? frame->tcp.destination : frame->tcp.source,
		.hi_port = swap ? frame->tcp.source : frame->tcp.destination,
		.protocol = PROTOCOL_TCP,
		.family = 4,
	};
	*found = frame;
	return find(&tuple);
}

static __always_inline void floor_count(struct conn *conn, const struct floor_frame *frame)
{
	__sync_fetch_and_add(&conn->packets[ORIGINAL], 1);
	__sync_fetch_and_add(&conn->bytes[ORIGINAL], ntoh16(frame->ip.length));
	conn->tcp_last_seq = bpf_jiffies64();	/* a store beside the counters; the stamp must stay what it is */
}

int tc_floor_table(struct __sk_buff *skb)
{
	struct floor_frame *frame;
	struct conn *conn = floor_find(skb, &frame);

	if (conn)
		floor_count(conn, frame);
	return 0;
}

/* The same, and the least that a tracker must ask of TCP's window: is the packet beyond what its receiver allows? Its numbers are in the
 * entry's second cache line. */
int tc_floor_window(struct __sk_buff *skb)
{
	struct floor_frame *frame;
	struct conn *conn = floor_find(skb, &frame);

	if (conn && before(ntoh32(frame->tcp.seq), conn->window[ORIGINAL].max_end + 1))
		floor_count(conn, frame);
	return 0;
}

"""What may be said on FTP's control connection: to be followed, odd, and hostile. By whom, and over what.

MINE is the speaker's own address, THEIRS the other's, both with commas; OWN is the former as it is usually written.
HI,LO are the bytes of a port, PORT all of it.
"""

from __future__ import annotations

LONG = "9" * 40

RIGHT = {
    "server": ["227 Entering (MINE,HI,LO)", "227 =MINE,HI,LO", "229 Extended (|||PORT|)", "229 (!!!PORT!)"],
    "client": ["PORT MINE,HI,LO", "EPRT |1|OWN|PORT|"],
    "server, IPv6": ["229 Extended (|||PORT|)"],
    "client, IPv6": ["EPRT |2|OWN|PORT|"],
}
# nf_conntrack's helper expects something after these, ours does not: docs/differences.md.
ODD = {
    "server": [
        "227 (MINE,OVER,LO)", "227 (MINE,HI,LO+256)", "227 (MINE,0,0)", "229 (|||PORT+65536|)",
    ],
    "client": ["PORT MINE,OVER,LO", "PORT MINE,0,0", "EPRT |1|OWN|PORT+65536|"],
    "server, IPv6": ["229 (|||PORT+65536|)"],
    "client, IPv6": ["EPRT |2|OWN|PORT+65536|"],
}
WRONG = {
    "server": [
        "227 (THEIRS,HI,LO)", "227 (127,0,0,1,HI,LO)", "227 (MINE,HI)", "227 (MINE,HI,x)", "227 (MINE,HI,LO,7)",
        "227 (MINE,-HI,LO)", "227 (MINE HI LO)", f"227 (MINE,{LONG},LO)", f"227 ({LONG},9,2,1,HI,LO)",
        "227 (" + "1," * 300 + "1)", "227 ", "227", "228 (MINE,HI,LO)", "PORT MINE,HI,LO", "EPRT |1|OWN|PORT|",
        "229 (|||0|)", "229 (|||PORT)", "229 (||PORT|)", "229 (111PORT1)", "229 (|1||PORT|)", "229 (|||x|)",
        "229 |||PORT|", "229 (" + "|" * 300 + "PORT|)", f"229 (|||{LONG}|)",
    ],
    "client": [
        "PORT THEIRS,HI,LO", "PORT MINE,HI", "PORT MINE,HI,LO,1", "PORTMINE,HI,LO", "227 (MINE,HI,LO)",
        "EPRT |2|OWN|PORT|", "EPRT |3|OWN|PORT|", "EPRT |1|OWN|0|", "EPRT |1|OWN|PORT", "EPRT |1|10.9.1.999|PORT|",
        "EPRT |1|10.9.1|PORT|", "EPRT 1|1|OWN|PORT|", f"EPRT |1|OWN|{LONG}|",
    ],
    "server, IPv6": ["229 (|||0|)", "227 (10,9,2,1,HI,LO)", "229 (|||x|)"],
    "client, IPv6": [
        "EPRT |1|OWN|PORT|", "EPRT |2|::1|PORT|", "EPRT |2|fd09:1:::1|PORT|", "EPRT |2|fd09::1::1|PORT|",
        "EPRT |2|1:2:3:4:5:6:7:8:9|PORT|", "EPRT |2|OWN|0|", "PORT 10,9,1,1,HI,LO",
    ],
}  # fmt: skip


def filled(words: str, mine: str, theirs: str, port: int) -> bytes:
    values = {
        "MINE": mine.replace(".", ","), "THEIRS": theirs.replace(".", ","), "OWN": mine,
        "OVER": str((port >> 8) + 256), "HI": str(port >> 8), "LO+256": str((port & 255) + 256), "LO": str(port & 255),
        "PORT+65536": str(port + 65_536), "|PORT": f"|{port}", "!PORT": f"!{port}", "1PORT": f"1{port}",
    }  # fmt: skip
    for name, value in values.items():
        words = words.replace(name, value)
    return f"{words}\r\n".encode()

"""A world without sockets: virtual time, a scripted Upbit, seeded faults and a judge around the real lifecycle."""

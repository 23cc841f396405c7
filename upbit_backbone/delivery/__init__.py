"""Out to subscribers: what they are sent waits in mailboxes; the hub fills them, consumers and iterators empty them."""

"""The control port: looking into a running simulator and breaking it on purpose."""

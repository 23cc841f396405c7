"""Other libraries' faces over the backbone, so that programs written for them run unchanged."""

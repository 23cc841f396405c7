"""What Upbit writes: spellings of numbers and times, REST rows, stream objects. Pure text."""

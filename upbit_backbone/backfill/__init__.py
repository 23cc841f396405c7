"""What a broken line missed: found by sequence, fetched by pages, merged in order."""

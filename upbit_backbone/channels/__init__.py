"""Ways to answer one question, each with the same small face: `fetch(request, deadline)`."""

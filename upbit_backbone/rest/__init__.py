"""Questions by REST: batched, merged, limited, retried, and always answered by their deadline."""

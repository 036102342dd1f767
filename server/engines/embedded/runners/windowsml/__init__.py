"""Windows ML's catalogue: listing, fetching and registering providers; the embedded engine imports it."""

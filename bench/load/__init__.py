"""A load generator and its steady state, without servers; `bench` imports it."""

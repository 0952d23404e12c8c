//! Fetches, builds and caches what a run needs.

//! Line protocol: where lines end, which are sound, what each is about.

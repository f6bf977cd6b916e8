//! Real local clusters for tests, benches and the demo: control plane, KWOK, a real node, write counts.

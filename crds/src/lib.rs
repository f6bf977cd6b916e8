//! The Kubernetes API types of Springtide, and nothing else.

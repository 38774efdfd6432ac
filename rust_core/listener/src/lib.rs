//! The native front door.

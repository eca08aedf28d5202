//! `obtrace demo`.

//! Attribute and function-like macros of `open-coroutine`.

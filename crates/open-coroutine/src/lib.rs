//! Run ordinary blocking code on coroutines.

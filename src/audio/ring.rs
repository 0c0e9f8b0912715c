//! A bounded, lock-free ring of samples between two threads.

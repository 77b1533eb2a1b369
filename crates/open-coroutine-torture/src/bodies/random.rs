//! `rand`'s generator of the thread, which is one per coroutine.

use rand::RngExt;

use super::{Round, work};

pub(super) fn round(_: &mut Round) {
    const FACES: usize = 6;
    const THROWS: usize = 600;
    let mut generator = rand::rng();
    let mut counts = [0; FACES];
    for throw in 0..THROWS {
        counts[generator.random_range(0..FACES)] += 1;
        if throw % 100 == 0 {
            work(1);
        }
    }
    assert_eq!(THROWS, counts.iter().sum::<usize>());
    // Each is off by this much once in 10^15 rounds.
    assert!(
        counts.iter().all(|count| (25..200).contains(count)),
        "{counts:?}"
    );
    let numbers: [u64; 4] = generator.random();
    let others: [u64; 4] = rand::random();
    assert_ne!(numbers, others);
}

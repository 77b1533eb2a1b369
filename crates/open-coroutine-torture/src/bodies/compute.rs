//! Computing: what registers and flags hold must survive any switch.

use std::hint::black_box;

use open_coroutine::yield_now;
use open_coroutine_core::sys;

use super::{Round, work};

/// A few milliseconds of nothing but instructions.
pub(super) fn hog(round: &mut Round) {
    assert_ne!(0, work(200 + round.below(200)));
}

/// The same sums in two ways: with everything in registers, and exactly.
pub(super) fn floats(round: &mut Round) {
    let start = round.below(1000);
    let mut sums = [0.0_f64; 8];
    let mut exact = [0_u64; 8];
    for step in 0..20_000 {
        for (lane, (sum, exact)) in sums.iter_mut().zip(&mut exact).enumerate() {
            // Small enough to be exact in both.
            let term = (start + step) % 1000 * (lane as u64 + 1);
            *sum += term as f64;
            *exact += term;
        }
    }
    let converted = exact.map(|exact| exact as f64);
    assert_eq!(converted, black_box(sums));
    let root = (2.0_f64 + start as f64).sqrt();
    yield_now();
    assert_eq!(
        root.to_bits(),
        (2.0_f64 + black_box(start) as f64).sqrt().to_bits()
    );
}

pub(super) fn vectors(round: &mut Round) {
    let start = round.below(1000) as i32;
    let reference = wide(start, i32::wrapping_mul);
    for _ in 0..4 {
        let sums = vector_sums(start);
        assert_eq!(reference, sums);
    }
}

const STEPS: i32 = 5000;

/// One lane after the other.
fn wide(start: i32, multiply: impl Fn(i32, i32) -> i32) -> [i32; 8] {
    let lane = |lane: i32| {
        let step = |sum: i32, step: i32| sum.wrapping_add(multiply(step, start + lane));
        (0..STEPS).fold(lane, step)
    };
    std::array::from_fn(|index| lane(index as i32))
}

cfg_select! {
    target_arch = "x86_64" => {
        use std::arch::x86_64::{
            __m256i, _mm256_add_epi32, _mm256_mullo_epi32, _mm256_set1_epi32, _mm256_setr_epi32,
        };

        fn vector_sums(start: i32) -> [i32; 8] {
            if is_x86_feature_detected!("avx2") {
                // SAFETY: the processor has AVX2.
                unsafe { avx(start) }
            } else {
                wide(start, i32::wrapping_mul)
            }
        }

        /// All lanes at once, in 256-bit registers.
        #[target_feature(enable = "avx2")]
        fn avx(start: i32) -> [i32; 8] {
            let mut sums = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            let factors = _mm256_add_epi32(sums, _mm256_set1_epi32(start));
            for step in 0..STEPS {
                let step = _mm256_set1_epi32(black_box(step));
                sums = _mm256_add_epi32(sums, _mm256_mullo_epi32(step, factors));
            }
            // SAFETY: both are 32 bytes without padding.
            unsafe { std::mem::transmute::<__m256i, [i32; 8]>(sums) }
        }
    }
    _ => {
        /// Left to the compiler's vectors.
        fn vector_sums(start: i32) -> [i32; 8] {
            let mut sums: [i32; 8] = std::array::from_fn(|lane| lane as i32);
            for step in 0..STEPS {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    let term = black_box(step).wrapping_mul(start + lane as i32);
                    *sum = sum.wrapping_add(term);
                }
            }
            sums
        }
    }
}

/// `errno` belongs to the coroutine.
pub(super) fn errno(round: &mut Round) {
    for number in 1..50 {
        let own = (round.index as i32 + number) % 100 + 1;
        sys::set_errno(own);
        work(2);
        assert_eq!(own, sys::errno());
        if number % 16 == 0 {
            yield_now();
            assert_eq!(own, sys::errno());
        }
    }
}

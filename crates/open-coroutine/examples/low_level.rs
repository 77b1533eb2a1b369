//! Coroutines without a runtime: resumed by hand, as generators.
//!
//!     cargo run --release -p open-coroutine --example low_level

use open_coroutine::{Coroutine, Listener, StackError, State, StateKind, Suspender};

/// Prints every change of state.
struct Trace;

impl Listener for Trace {
    fn changed(&self, _id: u64, name: &str, old: StateKind, new: StateKind) {
        println!("{name}: {old} -> {new}");
    }
}

fn main() -> Result<(), StackError> {
    // Values go both ways: each resume brings a number, each suspension hands
    // out the average so far.
    let mut average = Coroutine::new(|suspender: &Suspender<'_, f64, f64>, mut number: f64| {
        let (mut sum, mut count) = (0.0, 0.0);
        while number.is_finite() {
            sum += number;
            count += 1.0;
            number = suspender.suspend_with(sum / count);
        }
        count
    })?
    .named("average");
    average.add_listener(Trace);

    for number in [1.0, 2.0, 6.0, f64::NAN] {
        match average.resume_with(number) {
            State::Suspended(average) => println!("the average is {average}"),
            State::Complete(count) => println!("of {count} numbers"),
            State::Error(_) => unreachable!("it does not panic"),
        }
    }

    // Dropped half-way, a coroutine is unwound: its destructors run.
    struct Farewell;
    impl Drop for Farewell {
        fn drop(&mut self) {
            println!("unwound");
        }
    }
    let mut unfinished = Coroutine::new(|suspender: &Suspender<'_, (), ()>, ()| {
        let _farewell = Farewell;
        suspender.suspend_with(());
    })?;
    unfinished.resume_with(());
    drop(unfinished);
    Ok(())
}

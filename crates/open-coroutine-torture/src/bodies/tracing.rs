//! `tracing`: which span is the current one is known per thread.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Once;

use open_coroutine::yield_now;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber, debug_span, info, info_span};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use super::{Round, work};

thread_local! {
    /// The owner of each event that this coroutine has made.
    static SEEN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Checks that each event happens in a span of its owner.
struct Owners;

struct Owner(u64);

impl Visit for Owner {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "owner" {
            self.0 = value;
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Owners {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut owner = Owner(0);
        attributes.record(&mut owner);
        let span = context.span(id).expect("it is new");
        span.extensions_mut().insert(owner);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut owner = Owner(0);
        event.record(&mut owner);
        for span in context.event_scope(event).into_iter().flatten() {
            let extensions = span.extensions();
            let of_span = extensions.get::<Owner>().expect("it is set from the start");
            assert_eq!(of_span.0, owner.0, "an event in somebody else's span");
        }
        SEEN.with_borrow_mut(|seen| seen.push(owner.0));
    }
}

pub(super) fn round(round: &mut Round) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let subscriber = Registry::default().with(Owners);
        tracing::subscriber::set_global_default(subscriber).expect("it is the only one");
    });
    let owner = round.index as u64 + 1;
    let outer = info_span!("outer", owner).entered();
    for step in 0..10 {
        let inner = debug_span!("inner", owner, step).entered();
        info!(owner, "in a span");
        work(1);
        if step % 4 == 0 {
            yield_now();
        }
        assert_eq!(inner.id(), tracing::Span::current().id());
    }
    assert_eq!(outer.id(), tracing::Span::current().id());
    drop(outer);
    assert!(tracing::Span::current().is_none());
    let seen = SEEN.take();
    assert!(
        seen.len() == 10 && seen.iter().all(|other| *other == owner),
        "{seen:?}"
    );
}

//! The connections to the database, which those who need one take in turn.
//!
//! The binaries that block include this file, each on the locks of its runtime, which it has in
//! a module `sync`.

use std::ops::{Deref, DerefMut};

use crate::sync::{Condvar, Mutex};

pub struct Pool<D> {
    free: Mutex<Vec<D>>,
    returned: Condvar,
}

impl<D> Pool<D> {
    pub fn new(all: Vec<D>) -> Self {
        Self {
            free: Mutex::new(all),
            returned: Condvar::new(),
        }
    }

    /// Waits for a connection that nobody uses.
    pub fn take(&self) -> Taken<'_, D> {
        let mut free = self.free.lock().expect(UNPOISONED);
        loop {
            if let Some(connection) = free.pop() {
                return Taken {
                    connection: Some(connection),
                    pool: self,
                };
            }
            free = self.returned.wait(free).expect(UNPOISONED);
        }
    }
}

/// A connection that goes back to the pool with this value.
pub struct Taken<'a, D> {
    connection: Option<D>,
    pool: &'a Pool<D>,
}

impl<D> Deref for Taken<'_, D> {
    type Target = D;

    fn deref(&self) -> &D {
        self.connection.as_ref().expect(TAKEN)
    }
}

impl<D> DerefMut for Taken<'_, D> {
    fn deref_mut(&mut self) -> &mut D {
        self.connection.as_mut().expect(TAKEN)
    }
}

impl<D> Drop for Taken<'_, D> {
    fn drop(&mut self) {
        let connection = self.connection.take().expect(TAKEN);
        self.pool.free.lock().expect(UNPOISONED).push(connection);
        self.pool.returned.notify_one();
    }
}

const UNPOISONED: &str = "nothing panics while it holds the lock";
const TAKEN: &str = "it is taken out by `drop` alone";

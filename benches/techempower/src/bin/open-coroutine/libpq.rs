//! libpq, C's own library for PostgreSQL, which waits in `poll`.
//!
//! # Invariants
//!
//! 1. `connection` is libpq's from `connect` to `drop`, and nobody else has it.
//! 2. A result that is not null is libpq's until it is cleared, by `Rows::drop` alone.

use std::ffi::{CStr, CString, c_char, c_int};
use std::io;
use std::ptr;
use std::slice;

use bench_techempower::answer::Database;
use bench_techempower::model::{
    Fortune, SELECT_FORTUNES, SELECT_WORLD, UPDATE_WORLDS, World, int_array,
};
use bench_techempower::options::Options;
use pq_sys::{ConnStatusType, ExecStatusType, PGconn, PGresult};

const WORLD: &CStr = c"world";
const FORTUNES: &CStr = c"fortunes";
const UPDATE: &CStr = c"update";
/// The format of parameters and results.
const BINARY: c_int = 1;
/// No statement has more parameters.
const MOST_PARAMETERS: usize = 2;

/// A connection with its prepared statements.
pub struct Libpq {
    connection: *mut PGconn,
    pipelines: bool,
}

// SAFETY: libpq allows a connection to be used by one thread after another.
unsafe impl Send for Libpq {}

impl Libpq {
    pub fn connect(options: &Options) -> io::Result<Self> {
        let url = CString::new(options.database.as_str())?;
        let this = Self {
            // SAFETY: `url` ends with a zero.
            connection: unsafe { pq_sys::PQconnectdb(url.as_ptr()) },
            pipelines: options.pipelines,
        };
        // SAFETY: invariant 1; it may be null, too.
        let status = unsafe { pq_sys::PQstatus(this.connection) };
        if status != ConnStatusType::CONNECTION_OK {
            return Err(this.error());
        }
        for (name, statement) in [
            (WORLD, SELECT_WORLD),
            (FORTUNES, SELECT_FORTUNES),
            (UPDATE, UPDATE_WORLDS),
        ] {
            this.prepare(name, statement)?;
        }
        Ok(this)
    }

    fn prepare(&self, name: &CStr, statement: &str) -> io::Result<()> {
        let statement = CString::new(statement)?;
        // SAFETY: invariant 1; both texts end with a zero, and no types of parameters are given.
        let result = unsafe {
            pq_sys::PQprepare(
                self.connection,
                name.as_ptr(),
                statement.as_ptr(),
                0,
                ptr::null(),
            )
        };
        self.check(result).map(drop)
    }

    /// Executes a statement and waits for its result.
    fn execute(&self, name: &CStr, parameters: &[&[u8]]) -> io::Result<Rows> {
        let parameters = Parameters::new(parameters);
        // SAFETY: invariant 1; the arrays have as many items as `count` says, and each value as
        // many bytes as its length says (see `Parameters`).
        let result = unsafe {
            pq_sys::PQexecPrepared(
                self.connection,
                name.as_ptr(),
                parameters.count,
                parameters.values.as_ptr(),
                parameters.lengths.as_ptr(),
                parameters.formats.as_ptr(),
                BINARY,
            )
        };
        self.check(result)
    }

    /// Reads a row for each of `ids`, whose queries are on their way at once. Each has a `Sync`
    /// of its own, as the rules ask for; this is what libpq sends at once, with all before it.
    fn pipelined(&self, ids: &[i32]) -> io::Result<Vec<World>> {
        // SAFETY: invariant 1. It changes how the connection is used, and sends nothing.
        self.succeeded(unsafe { pq_sys::PQenterPipelineMode(self.connection) })?;
        for id in ids {
            self.send(WORLD, &[&id.to_be_bytes()])?;
            // SAFETY: invariant 1.
            self.succeeded(unsafe { pq_sys::PQpipelineSync(self.connection) })?;
        }
        // All are read before the first error counts.
        let worlds: Vec<_> = ids.iter().map(|_| self.next_world()).collect();
        // SAFETY: invariant 1. It fails if something is left to read.
        self.succeeded(unsafe { pq_sys::PQexitPipelineMode(self.connection) })?;
        worlds.into_iter().collect()
    }

    fn send(&self, name: &CStr, parameters: &[&[u8]]) -> io::Result<()> {
        let parameters = Parameters::new(parameters);
        // SAFETY: as in `execute`; libpq copies what it does not send at once.
        let sent = unsafe {
            pq_sys::PQsendQueryPrepared(
                self.connection,
                name.as_ptr(),
                parameters.count,
                parameters.values.as_ptr(),
                parameters.lengths.as_ptr(),
                parameters.formats.as_ptr(),
                BINARY,
            )
        };
        self.succeeded(sent)
    }

    /// The row of the next query in the pipeline.
    fn next_world(&self) -> io::Result<World> {
        // SAFETY: invariant 1.
        let rows = self.check(unsafe { pq_sys::PQgetResult(self.connection) });
        // Behind it come a null, which ends the query, and the answer to its `Sync`.
        for _ in 0..2 {
            // SAFETY: invariants 1 and 2.
            drop(Rows(unsafe { pq_sys::PQgetResult(self.connection) }));
        }
        rows?.world()
    }

    /// The rows of a result, or the error that it is.
    fn check(&self, result: *mut PGresult) -> io::Result<Rows> {
        let rows = Rows(result);
        // SAFETY: invariant 2; it may be null, too.
        match unsafe { pq_sys::PQresultStatus(rows.0) } {
            ExecStatusType::PGRES_TUPLES_OK | ExecStatusType::PGRES_COMMAND_OK => Ok(rows),
            _ => Err(self.error()),
        }
    }

    /// Most functions return 1 if all is well.
    fn succeeded(&self, result: c_int) -> io::Result<()> {
        if result == 1 {
            Ok(())
        } else {
            Err(self.error())
        }
    }

    /// What libpq says of the last failure.
    fn error(&self) -> io::Error {
        // SAFETY: invariant 1; it may be null, too. The text is valid until the next call, and
        // is copied here.
        let text = unsafe { CStr::from_ptr(pq_sys::PQerrorMessage(self.connection)) };
        io::Error::other(text.to_string_lossy().trim_end())
    }
}

impl Drop for Libpq {
    fn drop(&mut self) {
        // SAFETY: invariant 1: nobody uses it afterwards. It may be null, too.
        unsafe { pq_sys::PQfinish(self.connection) };
    }
}

impl Database for Libpq {
    fn world(&mut self, id: i32) -> io::Result<World> {
        self.execute(WORLD, &[&id.to_be_bytes()])?.world()
    }

    fn worlds(&mut self, ids: &[i32]) -> io::Result<Vec<World>> {
        if self.pipelines {
            self.pipelined(ids)
        } else {
            ids.iter().map(|id| self.world(*id)).collect()
        }
    }

    fn fortunes(&mut self) -> io::Result<Vec<Fortune>> {
        let rows = self.execute(FORTUNES, &[])?;
        (0..rows.len()).map(|row| rows.fortune(row)).collect()
    }

    fn update(&mut self, worlds: &[World]) -> io::Result<()> {
        let ids = int_array(worlds.iter().map(|world| world.id));
        let numbers = int_array(worlds.iter().map(|world| world.random_number));
        self.execute(UPDATE, &[&ids, &numbers]).map(drop)
    }
}

/// The parameters of a statement as libpq wants them. The first `count` items of `values` point
/// to as many bytes as `lengths` says, for as long as what it was made of lives.
struct Parameters {
    count: c_int,
    values: [*const c_char; MOST_PARAMETERS],
    lengths: [c_int; MOST_PARAMETERS],
    formats: [c_int; MOST_PARAMETERS],
}

impl Parameters {
    fn new(parameters: &[&[u8]]) -> Self {
        let length = |length| c_int::try_from(length).expect("parameters are small");
        let mut this = Self {
            count: length(parameters.len()),
            values: [ptr::null(); MOST_PARAMETERS],
            lengths: [0; MOST_PARAMETERS],
            formats: [BINARY; MOST_PARAMETERS],
        };
        for (index, parameter) in parameters.iter().enumerate() {
            this.values[index] = parameter.as_ptr().cast();
            this.lengths[index] = length(parameter.len());
        }
        this
    }
}

/// A result of libpq, which may be null.
struct Rows(*mut PGresult);

impl Rows {
    fn len(&self) -> c_int {
        // SAFETY: invariant 2.
        unsafe { pq_sys::PQntuples(self.0) }
    }

    /// The only row.
    fn world(&self) -> io::Result<World> {
        Ok(World {
            id: self.int(0, 0)?,
            random_number: self.int(0, 1)?,
        })
    }

    fn fortune(&self, row: c_int) -> io::Result<Fortune> {
        let message = self.value(row, 1).to_owned();
        Ok(Fortune {
            id: self.int(row, 0)?,
            message: String::from_utf8(message).map_err(io::Error::other)?,
        })
    }

    fn int(&self, row: c_int, column: c_int) -> io::Result<i32> {
        let bytes = self.value(row, column).try_into();
        Ok(i32::from_be_bytes(bytes.map_err(io::Error::other)?))
    }

    /// The bytes of a value; none if there is no such row.
    fn value(&self, row: c_int, column: c_int) -> &[u8] {
        // SAFETY: invariant 2; for places that do not exist it returns null.
        let value = unsafe { pq_sys::PQgetvalue(self.0, row, column) };
        if value.is_null() {
            return &[];
        }
        // SAFETY: as above.
        let length = unsafe { pq_sys::PQgetlength(self.0, row, column) };
        let length = usize::try_from(length).expect("lengths are positive");
        // SAFETY: there are as many bytes, which live as long as the result.
        unsafe { slice::from_raw_parts(value.cast(), length) }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        // SAFETY: invariant 2; what points into it borrows `self`. It may be null, too.
        unsafe { pq_sys::PQclear(self.0) };
    }
}

//! The `mysql` crate and a MariaDB server, with connections of the coroutines'
//! own and with those of an r2d2 pool.

use std::sync::{Arc, Barrier};

use mysql::prelude::Queryable;
use mysql::{Conn, Error, Opts, OptsBuilder, TxOpts, params};
use open_coroutine_compatibility::{COROUTINES, Crowd, MariaDb, eventually, on_every_driver};
use r2d2::Pool;
use r2d2_mysql::MySqlConnectionManager;

fn connect(url: &str) -> Conn {
    Conn::new(url).unwrap()
}

fn create_table(connection: &mut Conn) {
    let (old, new) = (
        "DROP TABLE IF EXISTS word",
        "CREATE TABLE word (owner INT, text TEXT)",
    );
    connection.query_drop(old).unwrap();
    connection.query_drop(new).unwrap();
}

/// Some statements of each kind; their answers must be those for `n`.
fn work(connection: &mut Conn, n: usize) {
    let letter = char::from(b'a' + (n % 26) as u8).to_string();
    for round in 1..=3 {
        let mut transaction = connection.start_transaction(TxOpts::default()).unwrap();
        let insert = "INSERT INTO word VALUES (:n, REPEAT(:letter, 1000))";
        let rows = (0..5).map(|_| params! { "n" => n, "letter" => &letter });
        transaction.exec_batch(insert, rows).unwrap();
        transaction.commit().unwrap();

        let select = "SELECT owner, text FROM word WHERE owner = ?";
        let rows: Vec<(usize, String)> = connection.exec(select, (n,)).unwrap();
        assert!(vec![(n, letter.repeat(1000)); 5 * round] == rows);
        let text: Option<String> = connection
            .query_first(format!("SELECT 'it is {n}'"))
            .unwrap();
        assert_eq!(Some(format!("it is {n}")), text);
        let error = connection.query_drop("SELECT nonsense").unwrap_err();
        assert!(matches!(error, Error::MySqlError(error) if error.code == 1054));
    }
}

fn assert_all_worked(connection: &mut Conn) {
    let sums = "SELECT COUNT(*), COUNT(DISTINCT owner) FROM word";
    let sums: Option<(usize, usize)> = connection.query_first(sums).unwrap();
    assert_eq!(Some((COROUTINES * 15, COROUTINES)), sums);
}

#[test]
fn answers_reach_the_coroutine_that_asked() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    let url = server.url();
    on_every_driver(move || {
        let mut own = connect(&url);
        create_table(&mut own);
        let all_connected = Arc::new(Barrier::new(COROUTINES));
        let crowd = Crowd::start(move |n| {
            let mut connection = connect(&url);
            all_connected.wait();
            work(&mut connection, n);
        });
        crowd.join();
        assert_all_worked(&mut own);
    });
}

#[test]
fn others_go_on_while_all_wait_for_a_lock_of_the_server() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    let url = server.url();
    on_every_driver(move || {
        let mut own = connect(&url);
        own.query_drop("SELECT GET_LOCK('held', 0)").unwrap();
        let crowd = Crowd::start(move |n| {
            let lock = "SELECT GET_LOCK('held', 60) + ?";
            assert_eq!(Some(n + 1), connect(&url).exec_first(lock, (n,)).unwrap());
        });
        eventually("all wait for the lock", || {
            let waiting =
                "SELECT COUNT(*) FROM information_schema.processlist WHERE state = 'User lock'";
            own.query_first(waiting).unwrap() == Some(COROUTINES)
        });
        crowd.tick();
        own.query_drop("SELECT RELEASE_LOCK('held')").unwrap();
        crowd.join();
    });
}

#[test]
fn a_small_pool_serves_all() {
    let Some(server) = MariaDb::start() else {
        return;
    };
    let url = server.url();
    on_every_driver(move || {
        create_table(&mut connect(&url));
        let manager =
            MySqlConnectionManager::new(OptsBuilder::from_opts(Opts::from_url(&url).unwrap()));
        let pool = Pool::builder().max_size(8).build(manager).unwrap();
        let mut held = (0..8).map(|_| pool.get().unwrap()).collect::<Vec<_>>();
        let shared = pool.clone();
        let crowd = Crowd::start(move |n| work(&mut shared.get().unwrap(), n));
        crowd.tick();
        held.clear();
        crowd.join();
        assert_all_worked(&mut pool.get().unwrap());
    });
}

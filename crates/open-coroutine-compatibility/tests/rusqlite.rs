//! SQLite, compiled in from C: it locks files, mutexes and shared memory, and
//! sleeps when another connection is faster.

use std::path::Path;
use std::time::Duration;

use open_coroutine_compatibility::{COROUTINES, Crowd, TemporaryFolder, on_every_driver};
use rusqlite::{Connection, TransactionBehavior::Immediate};

fn connect(path: &Path) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    connection
        .pragma_update(None, "synchronous", "normal")
        .unwrap();
    connection
}

/// A new database that many may write to and read from.
fn create(path: &Path) -> Connection {
    let connection = connect(path);
    connection
        .pragma_update(None, "journal_mode", "wal")
        .unwrap();
    let tables = "CREATE TABLE word (owner INTEGER, text TEXT);
        CREATE TABLE sum (value INTEGER);
        INSERT INTO sum VALUES (0);";
    connection.execute_batch(tables).unwrap();
    connection
}

fn number(connection: &Connection, query: &str) -> i64 {
    connection.query_row(query, (), |row| row.get(0)).unwrap()
}

fn add(connection: &mut Connection, n: i64) {
    let transaction = connection.transaction_with_behavior(Immediate).unwrap();
    let sum = number(&transaction, "SELECT value FROM sum") + n;
    let update = "UPDATE sum SET value = ?";
    transaction.execute(update, [sum]).unwrap();
    let row = (n, n.to_string().repeat(500));
    let insert = "INSERT INTO word VALUES (?, ?)";
    transaction.execute(insert, row).unwrap();
    transaction.commit().unwrap();
}

#[test]
fn writers_and_readers_see_whole_transactions() {
    on_every_driver(|| {
        let folder = TemporaryFolder::new();
        let path = folder.path().join("database");
        let own = create(&path);
        let crowd = Crowd::start(move |n| {
            let (mut connection, n) = (connect(&path), n as i64);
            for round in 1..=3 {
                // Few write: who finds another one writing sleeps up to 0.1 s.
                if n % 8 == 0 {
                    add(&mut connection, n);
                    let select = "SELECT text FROM word WHERE owner = ?";
                    let mut select = connection.prepare(select).unwrap();
                    let texts = select.query_map([n], |row| row.get(0)).unwrap();
                    let texts = texts.collect::<Result<Vec<String>, _>>().unwrap();
                    assert!(vec![n.to_string().repeat(500); round] == texts);
                }
                let difference =
                    "SELECT (SELECT value FROM sum) - coalesce(sum(owner), 0) FROM word";
                assert_eq!(0, number(&connection, difference));
            }
        });
        crowd.join();
        let expected = (0..COROUTINES as i64).step_by(8).sum::<i64>() * 3;
        assert_eq!(expected, number(&own, "SELECT value FROM sum"));
        let check: String = own
            .query_row("PRAGMA integrity_check", (), |row| row.get(0))
            .unwrap();
        assert_eq!("ok", check);
    });
}

#[test]
fn others_go_on_while_all_wait_for_a_writer() {
    on_every_driver(|| {
        let folder = TemporaryFolder::new();
        let path = folder.path().join("database");
        let mut own = create(&path);
        let writer = own.transaction_with_behavior(Immediate).unwrap();
        writer.execute("UPDATE sum SET value = 7", ()).unwrap();
        let crowd = Crowd::start(move |_| {
            let mut connection = connect(&path);
            let transaction = connection.transaction_with_behavior(Immediate).unwrap();
            assert_eq!(7, number(&transaction, "SELECT value FROM sum"));
            transaction.rollback().unwrap();
        });
        crowd.tick();
        writer.commit().unwrap();
        crowd.join();
    });
}

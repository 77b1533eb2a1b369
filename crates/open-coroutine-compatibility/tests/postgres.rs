//! The `postgres` crate and a PostgreSQL server. The crate runs tokio below its
//! blocking interface: `epoll_wait` is what waits.

use std::sync::{Arc, Barrier};

use open_coroutine_compatibility::{COROUTINES, Crowd, Postgres, eventually, on_every_driver};
use postgres::{Client, NoTls};
use r2d2_postgres::{PostgresConnectionManager, r2d2::Pool};

fn connect(url: &str) -> Client {
    Client::connect(url, NoTls).unwrap()
}

fn create_table(client: &mut Client) {
    let table = "DROP TABLE IF EXISTS word; CREATE TABLE word (owner bigint, text text)";
    client.batch_execute(table).unwrap();
}

/// Some statements of each kind; their answers must be those for `n`.
fn work(client: &mut Client, n: i64) {
    for round in 0..3_i64 {
        let mut transaction = client.transaction().unwrap();
        let insert =
            "INSERT INTO word SELECT $1, repeat($2, 1000) || i FROM generate_series(1, 20) i";
        let letter = char::from(b'a' + (n % 26) as u8).to_string();
        assert_eq!(20, transaction.execute(insert, &[&n, &letter]).unwrap());
        transaction.commit().unwrap();

        let select = "SELECT owner, text FROM word WHERE owner = $1";
        let rows = client.query(select, &[&n]).unwrap();
        assert_eq!(20 * (round + 1), rows.len() as i64);
        for row in rows {
            let (owner, text): (i64, &str) = (row.get(0), row.get(1));
            assert_eq!((n, letter.repeat(1000)), (owner, text[..1000].to_owned()));
        }
        let error = client
            .query("SELECT 1 / ($1 - $1::bigint)", &[&n])
            .unwrap_err();
        assert_eq!("22012", error.code().unwrap().code());
    }
}

fn assert_all_worked(client: &mut Client) {
    let sums = "SELECT count(*), count(DISTINCT owner) FROM word";
    let row = client.query_one(sums, &[]).unwrap();
    let all = COROUTINES as i64;
    assert_eq!((all * 60, all), (row.get(0), row.get(1)));
}

#[test]
fn answers_reach_the_coroutine_that_asked() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.url();
    on_every_driver(move || {
        let mut own = connect(&url);
        create_table(&mut own);
        let all_connected = Arc::new(Barrier::new(COROUTINES));
        let crowd = Crowd::start(move |n| {
            let mut client = connect(&url);
            all_connected.wait();
            work(&mut client, n as i64);
        });
        crowd.join();
        assert_all_worked(&mut own);
    });
}

#[test]
fn others_go_on_while_all_wait_for_a_lock_of_the_server() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.url();
    on_every_driver(move || {
        let mut own = connect(&url);
        own.execute("SELECT pg_advisory_lock(7)", &[]).unwrap();
        let crowd = Crowd::start(move |n| {
            let locked = "SELECT $1::bigint FROM pg_advisory_xact_lock_shared(7)";
            let n = n as i64;
            assert_eq!(
                n,
                connect(&url)
                    .query_one(locked, &[&n])
                    .unwrap()
                    .get::<_, i64>(0)
            );
        });
        eventually("all wait for the lock", || {
            let waiting =
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
            own.query_one(waiting, &[]).unwrap().get::<_, i64>(0) == COROUTINES as i64
        });
        crowd.tick();
        own.execute("SELECT pg_advisory_unlock(7)", &[]).unwrap();
        crowd.join();
    });
}

#[test]
fn a_small_pool_serves_all() {
    let Some(server) = Postgres::start() else {
        return;
    };
    let url = server.url();
    on_every_driver(move || {
        create_table(&mut connect(&url));
        let manager = PostgresConnectionManager::new(url.parse().unwrap(), NoTls);
        let pool = Pool::builder().max_size(8).build(manager).unwrap();
        let mut held = (0..8).map(|_| pool.get().unwrap()).collect::<Vec<_>>();
        let shared = pool.clone();
        let crowd = Crowd::start(move |n| work(&mut shared.get().unwrap(), n as i64));
        crowd.tick();
        held.clear();
        crowd.join();
        assert_all_worked(&mut pool.get().unwrap());
    });
}

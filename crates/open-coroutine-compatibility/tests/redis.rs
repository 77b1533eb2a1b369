//! The `redis` crate and a Redis server.

use std::sync::{Arc, Barrier};

use open_coroutine_compatibility::{COROUTINES, Crowd, Redis, eventually, on_every_driver};
use redis::{Client, Commands, Connection};

fn connect(url: &str) -> Connection {
    Client::open(url).unwrap().get_connection().unwrap()
}

#[test]
fn answers_reach_the_coroutine_that_asked() {
    let Some(server) = Redis::start() else { return };
    let url = server.url();
    on_every_driver(move || {
        let mut own = connect(&url);
        let () = redis::cmd("FLUSHALL").query(&mut own).unwrap();
        let all_connected = Arc::new(Barrier::new(COROUTINES));
        let crowd = Crowd::start(move |n| {
            let mut connection = connect(&url);
            all_connected.wait();
            for round in 0..5 {
                let (key, value) = (format!("{n}-{round}"), vec![n as u8; 1000 * (n + 1)]);
                let () = connection.set(&key, &value).unwrap();
                assert!(value == connection.get::<_, Vec<u8>>(&key).unwrap());
                let (sum, text): (u32, String) = redis::pipe()
                    .incr("sum", n)
                    .ignore()
                    .incr(format!("sum of {n}"), n)
                    .cmd("ECHO")
                    .arg(&key)
                    .query(&mut connection)
                    .unwrap();
                assert_eq!((n * (round + 1), key), (sum as usize, text));
            }
        });
        crowd.join();
        let sum: usize = own.get("sum").unwrap();
        assert_eq!((0..COROUTINES).sum::<usize>() * 5, sum);
    });
}

#[test]
fn others_go_on_while_all_wait_for_an_element() {
    let Some(server) = Redis::start() else { return };
    let url = server.url();
    on_every_driver(move || {
        let mut own = connect(&url);
        let crowd = Crowd::start(move |_| {
            let (_, element): (String, usize) = connect(&url).blpop("list", 0.0).unwrap();
            element
        });
        eventually("all wait for an element", || {
            let info: String = redis::cmd("INFO").arg("clients").query(&mut own).unwrap();
            info.contains(&format!("blocked_clients:{COROUTINES}\r"))
        });
        crowd.tick();
        let elements = (0..COROUTINES).collect::<Vec<_>>();
        let () = own.rpush("list", &elements).unwrap();
        let mut popped = crowd.join();
        popped.sort();
        assert_eq!(elements, popped);
    });
}

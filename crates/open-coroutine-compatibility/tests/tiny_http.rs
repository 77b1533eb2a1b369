//! The server crate `tiny_http`: it has a thread per connection, and its
//! requests are taken and answered on coroutines.

use std::sync::Arc;

use open_coroutine_compatibility::{COROUTINES, Crowd, on_every_driver};
use tiny_http::{Request, Response, Server};

/// The URL of a server, and what its requests come from.
fn start() -> (String, Arc<Server>) {
    let server = Server::http("127.0.0.1:0").unwrap();
    let url = format!("http://{}", server.server_addr());
    (url, Arc::new(server))
}

/// Sends back path and body.
fn answer(mut request: Request) {
    let mut text = request.url().to_owned().into_bytes();
    request.as_reader().read_to_end(&mut text).unwrap();
    request.respond(Response::from_data(text)).unwrap();
}

fn ask(url: &str, n: usize, round: usize) {
    let body = vec![n as u8; 5000 * round];
    let path = format!("/{n}-{round}");
    let answer = ureq::post(format!("{url}{path}")).send(&body).unwrap();
    let expected = [path.as_bytes(), &body].concat();
    assert!(expected == answer.into_body().read_to_vec().unwrap());
}

#[test]
fn a_coroutine_answers_each_request() {
    on_every_driver(|| {
        let (url, server) = start();
        let requests = server.clone();
        let acceptor = open_coroutine::spawn(move || {
            for request in requests.incoming_requests() {
                open_coroutine::spawn(move || answer(request));
            }
        });
        let crowd = Crowd::start(move |n| (0..3).for_each(|round| ask(&url, n, round)));
        crowd.join();
        server.unblock();
        acceptor.join().unwrap();
    });
}

#[test]
fn others_go_on_while_all_wait_for_an_answer() {
    on_every_driver(|| {
        let (url, server) = start();
        let crowd = Crowd::start(move |n| ask(&url, n, 1));
        // Not all requests: beyond some, the server gives a connection a thread
        // only when another one is answered.
        let first = server.recv().unwrap();
        crowd.tick();
        answer(first);
        (1..COROUTINES).for_each(|_| answer(server.recv().unwrap()));
        crowd.join();
    });
}

//! C libcurl with libssl, and nginx over HTTP and over TLS.

mod held;

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use curl::easy::{Easy, List};
use open_coroutine_compatibility::{Crowd, Nginx, on_every_driver};

/// A handle with a connection of its own, which trusts `certificate`.
fn handle(certificate: &Path) -> Easy {
    let mut easy = Easy::new();
    if certificate.exists() {
        easy.cainfo(certificate).unwrap();
    }
    easy.fail_on_error(true).unwrap();
    // Else it interrupts name look-ups with SIGALRM.
    easy.signal(false).unwrap();
    easy
}

/// Sends what was set up; the body of the answer.
fn perform(easy: &mut Easy) -> Result<Vec<u8>, curl::Error> {
    let mut body = Vec::new();
    let mut transfer = easy.transfer();
    transfer
        .write_function(|data| {
            body.extend_from_slice(data);
            Ok(data.len())
        })
        .unwrap();
    transfer.perform()?;
    drop(transfer);
    Ok(body)
}

fn get(easy: &mut Easy, url: &str) -> Result<Vec<u8>, curl::Error> {
    easy.url(url).unwrap();
    perform(easy)
}

fn answers_reach_the_coroutine_that_asked(server: &Nginx) {
    let (url, certificate) = (server.url(), server.certificate());
    on_every_driver(move || {
        let file = Nginx::file();
        let crowd = Crowd::start(move |n| {
            let mut easy = handle(&certificate);
            if n % 2 == 1 {
                // An address that libcurl takes for a name: it has a thread of
                // its own look it up.
                let mut instead = List::new();
                instead.append("::127.1:").unwrap();
                easy.connect_to(instead).unwrap();
            }
            for round in 0..3 {
                let text = format!("{n}-{round}");
                let answer = get(&mut easy, &format!("{url}/echo?{text}")).unwrap();
                assert_eq!(text.as_bytes(), answer);
            }
            assert!(file == get(&mut easy, &format!("{url}/file")).unwrap());
            let error = get(&mut easy, &format!("{url}/missing")).unwrap_err();
            assert!(error.is_http_returned_error(), "{error}");
        });
        crowd.join();
    });
}

fn others_go_on_while_all_wait_for_an_answer(server: &Nginx, upstream: TcpListener) {
    let (url, certificate, upstream) = (server.url(), server.certificate(), Arc::new(upstream));
    on_every_driver(move || {
        let crowd = Crowd::start(move |n| {
            let body = vec![n as u8; 10_000];
            let mut easy = handle(&certificate);
            easy.url(&format!("{url}/held")).unwrap();
            easy.post(true).unwrap();
            easy.post_fields_copy(&body).unwrap();
            assert!(body == perform(&mut easy).unwrap());
        });
        let requests = held::accept_all(&upstream);
        crowd.tick();
        requests.into_iter().for_each(held::Request::answer);
        crowd.join();
    });
}

/// A listener for what the server holds back, and the server. `None` with the libcurl
/// that is built where none is installed: it has no TLS, and waits with `select`, which
/// cannot wait for one of more than 1024 descriptors.
fn start(is_tls: bool) -> Option<(TcpListener, Nginx)> {
    if !curl::Version::get().feature_ssl() {
        let is_required = std::env::var_os("OPEN_COROUTINE_REQUIRE_SERVERS").is_some();
        assert!(!is_required, "this is the bundled libcurl");
        eprintln!("skipped: the bundled libcurl cannot do it, install libcurl4-openssl-dev");
        return None;
    }
    let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let held = upstream.local_addr().unwrap();
    let server = if is_tls {
        Nginx::start_tls(held)
    } else {
        Nginx::start(held)
    };
    Some((upstream, server?))
}

#[test]
fn answers_over_http_reach_the_coroutine_that_asked() {
    let Some((_, server)) = start(false) else {
        return;
    };
    answers_reach_the_coroutine_that_asked(&server);
}

#[test]
fn answers_over_tls_reach_the_coroutine_that_asked() {
    let Some((_, server)) = start(true) else {
        return;
    };
    answers_reach_the_coroutine_that_asked(&server);
}

#[test]
fn others_go_on_while_all_wait_for_an_answer_over_http() {
    let Some((upstream, server)) = start(false) else {
        return;
    };
    others_go_on_while_all_wait_for_an_answer(&server, upstream);
}

#[test]
fn others_go_on_while_all_wait_for_an_answer_over_tls() {
    let Some((upstream, server)) = start(true) else {
        return;
    };
    others_go_on_while_all_wait_for_an_answer(&server, upstream);
}

//! The `ureq` crate with rustls, and nginx over TLS.

mod held;

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;

use open_coroutine_compatibility::{Crowd, Nginx, on_every_driver};
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// rustls needs more than the default in a build that does not optimize.
const STACK_SIZE: usize = 256 << 10;

/// What trusts the certificate of `server`.
fn agent(server: &Nginx) -> Agent {
    let certificate = fs::read(server.certificate()).unwrap();
    let certificate = Certificate::from_pem(&certificate).unwrap();
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(RootCerts::new_with_certs(&[certificate]))
        .build();
    Agent::config_builder().tls_config(tls).build().into()
}

#[test]
fn answers_reach_the_coroutine_that_asked() {
    let nowhere = (Ipv4Addr::LOCALHOST, 9).into();
    let Some(server) = Nginx::start_tls(nowhere) else {
        return;
    };
    let (url, shared) = (server.url(), agent(&server));
    let own = agent(&server).config().clone();
    on_every_driver(move || {
        let file = Nginx::file();
        let crowd = Crowd::start_with_stacks(STACK_SIZE, move |n| {
            // Every other coroutine takes its connections from one pool.
            let agent = match n % 2 {
                0 => shared.clone(),
                _ => Agent::new_with_config(own.clone()),
            };
            for round in 0..3 {
                let text = format!("{n}-{round}");
                let answer = agent.get(format!("{url}/echo?{text}")).call().unwrap();
                assert_eq!(text, answer.into_body().read_to_string().unwrap());
            }
            let answer = agent.get(format!("{url}/file")).call().unwrap();
            assert!(file == answer.into_body().read_to_vec().unwrap());
            let missing = agent.get(format!("{url}/missing")).call();
            assert!(matches!(missing, Err(ureq::Error::StatusCode(404))));
        });
        crowd.join();
    });
}

#[test]
fn others_go_on_while_all_wait_for_an_answer() {
    let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let held = upstream.local_addr().unwrap();
    let Some(server) = Nginx::start_tls(held) else {
        return;
    };
    let (url, agent, upstream) = (server.url(), agent(&server), Arc::new(upstream));
    on_every_driver(move || {
        let crowd = Crowd::start_with_stacks(STACK_SIZE, move |n| {
            let body = vec![n as u8; 10_000];
            let answer = agent.post(format!("{url}/held")).send(&body).unwrap();
            assert!(body == answer.into_body().read_to_vec().unwrap());
        });
        let requests = held::accept_all(&upstream);
        crowd.tick();
        requests.into_iter().for_each(held::Request::answer);
        crowd.join();
    });
}

use open_coroutine_core::runtime::*;
use std::time::*;
fn main() {
    println!("{}", capabilities());
    init(
        Config::default()
            .event_loop_size(std::env::args().nth(1).map_or(1, |a| a.parse().unwrap())),
    )
    .unwrap();
    let h = spawn(|| 20 + 22);
    assert_eq!(42, h.join().unwrap());
    let n = 100_000;
    let t = Instant::now();
    let sum: u64 = spawn(move || {
        let hs: Vec<_> = (0..n).map(|i| spawn(move || i)).collect();
        hs.into_iter().map(|h| h.join().unwrap()).sum()
    })
    .join()
    .unwrap();
    println!("{sum} spawn {} ns", t.elapsed().as_nanos() / n as u128);
    let t = Instant::now();
    let y = 1_000_000u64;
    let hs: Vec<_> = (0..2)
        .map(|_| {
            spawn(move || {
                for _ in 0..y {
                    open_coroutine_core::time::yield_now()
                }
            })
        })
        .collect();
    for h in hs {
        h.join().unwrap()
    }
    println!("yield {} ns", t.elapsed().as_nanos() / (2 * y) as u128);
    let t = Instant::now();
    let hs: Vec<_> = (0..10_000)
        .map(|_| spawn(|| open_coroutine_core::time::sleep(Duration::from_millis(100))))
        .collect();
    for h in hs {
        h.join().unwrap()
    }
    println!("sleep {:?}", t.elapsed());
    let e = spawn(|| panic!("boo")).join();
    println!("{e:?}");
    println!("{:?}", shutdown());
}

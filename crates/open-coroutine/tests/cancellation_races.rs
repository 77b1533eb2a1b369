//! Tasks that are cancelled at random moments, among others that are not: each ends
//! once, drops what it has, and takes nothing from the others.

mod flows;
mod runtimes;

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use flows::{Random, receive, rounds, send};
use open_coroutine::{
    Config, JoinHandle, TaskHandle, is_cancelled, park_timeout, sleep, spawn, yield_now,
};
use runtimes::on_every_runtime;

/// Counts those that live.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What victims share.
#[derive(Clone)]
struct Place {
    alive: Arc<AtomicUsize>,
    lock: Arc<Mutex<usize>>,
    listener: Arc<TcpListener>,
}

/// Sends back what it receives, until its peer ends.
fn echo(mut stream: UnixStream) {
    let mut buffer = [0; 256];
    loop {
        let count = stream.read(&mut buffer).unwrap_or(0);
        if count == 0 || stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

/// Does something that waits, in one of many ways.
fn wait_somehow(
    place: &Place,
    stream: &mut UnixStream,
    random: &mut Random,
) -> Result<(), io::Error> {
    let short = Duration::from_micros(random.below(300) as u64);
    match random.below(10) {
        0 => sleep(short),
        1 => thread::sleep(short),
        2 => park_timeout(short),
        3 => yield_now(),
        4 => *place.lock.lock().unwrap() += 1,
        5 => {
            let alive = Alive::new(&place.alive);
            let child = spawn(move || {
                let _alive = alive;
                yield_now();
            });
            child.join().unwrap();
        }
        6 => {
            let (sender, receiver) = mpsc::channel();
            spawn(move || sender.send(7).unwrap());
            assert_eq!(7, receiver.recv().unwrap());
        }
        7 => drop(place.listener.accept()?),
        8 => drop(TcpStream::connect(place.listener.local_addr()?)?),
        _ => {
            let bytes = [random.below(256) as u8; 100];
            let mut answer = [0; 100];
            stream.write_all(&bytes)?;
            stream.read_exact(&mut answer)?;
            assert_eq!(bytes, answer);
        }
    }
    Ok(())
}

/// A task that works until it is asked to end, or for some time.
fn victim(place: &Place, seed: u64) -> JoinHandle<()> {
    let place = place.clone();
    let alive = Alive::new(&place.alive);
    spawn(move || {
        let _alive = alive;
        let mut random = Random::new(seed);
        let (mut own, other) = UnixStream::pair().unwrap();
        spawn(move || echo(other));
        for _ in 0..random.below(1000) {
            let _held = Alive::new(&place.alive);
            match wait_somehow(&place, &mut own, &mut random) {
                Ok(()) => {}
                Err(error) => {
                    assert_eq!(Some(libc::ECANCELED), error.raw_os_error());
                    assert!(is_cancelled());
                    return;
                }
            }
        }
    })
}

/// Cancels at random moments, and checks that nothing is left behind.
fn cancel_at_random() {
    let before = open_files();
    rounds(|seed| {
        let mut random = Random::new(seed);
        let place = Place {
            alive: Arc::default(),
            lock: Arc::default(),
            listener: Arc::new(TcpListener::bind("127.0.0.1:0").unwrap()),
        };
        let (one, other) = UnixStream::pair().unwrap();
        let total = random.below(1 << 20);
        let (from, to) = (one.as_raw_fd(), other.as_raw_fd());
        let sender = spawn(move || send(from, total, Random::new(seed + 1)));
        let receiver = spawn(move || receive(to, Random::new(seed + 2)));
        let victims: Vec<_> = (0..20).map(|n| victim(&place, seed * 100 + n)).collect();
        for victim in &victims {
            random.pause();
            victim.cancel();
        }
        for victim in victims {
            if let Err(error) = victim.join() {
                assert!(error.is_cancelled(), "{error}");
            }
        }
        sender.join().unwrap();
        assert_eq!(total, receiver.join().unwrap());
        assert_eq!(0, place.alive.load(SeqCst));
    });
    // Those who echo end when they see that their peers have.
    while open_files() > before {
        sleep(Duration::from_micros(100));
    }
}

#[test]
fn cancels_at_random_moments_leave_nothing_behind() {
    on_every_runtime(cancel_at_random);
}

#[test]
fn cancels_of_those_who_are_preempted_leave_nothing_behind() {
    for workers in [1, 2] {
        let slice = Duration::from_micros(50);
        let config = Config::default().event_loop_size(workers).time_slice(slice);
        // A take-over would make files of its own.
        let config = config.take_over(false);
        // Somebody must always be waiting for the processor.
        runtimes::on_every_driver_as(&config, || {
            let is_over = Arc::new(AtomicBool::new(false));
            let hogs: Vec<_> = (0..2)
                .map(|_| {
                    let is_over = is_over.clone();
                    spawn(move || {
                        while !is_over.load(SeqCst) {
                            // Several slices, but no more: on a machine that is busy
                            // they get long.
                            (0..100_000).for_each(|_| std::hint::spin_loop());
                            thread::yield_now();
                        }
                    })
                })
                .collect();
            cancel_at_random();
            is_over.store(true, SeqCst);
            hogs.into_iter().for_each(|hog| hog.join().unwrap());
        });
    }
}

/// Reads what follows `position` in a flow of counted bytes.
fn read_counted(stream: &mut impl Read, position: usize, room: usize) -> io::Result<usize> {
    let mut bytes = vec![0; room];
    let count = stream.read(&mut bytes)?;
    for (index, byte) in bytes[..count].iter().enumerate() {
        assert_eq!((position + index) as u8, *byte, "at {}", position + index);
    }
    Ok(count)
}

#[test]
fn a_cancelled_reader_loses_no_byte() {
    on_every_runtime(|| {
        rounds(|seed| {
            let mut random = Random::new(seed);
            let (mut one, other) = UnixStream::pair().unwrap();
            let total = random.below(1 << 13);
            let mut writes = Random::new(seed + 1);
            let writer = spawn(move || {
                let mut position = 0;
                while position < total {
                    let end = total.min(position + 1 + writes.below(300));
                    let bytes: Vec<_> = (position..end).map(|place| place as u8).collect();
                    one.write_all(&bytes).unwrap();
                    position = end;
                    writes.pause();
                }
            });
            let other = Arc::new(other);
            let mut position = 0;
            // Reader after reader goes on where the one before was cancelled.
            loop {
                let (stream, start) = (other.clone(), position);
                let mut reads = Random::new(seed + position as u64);
                let reader = spawn(move || {
                    let mut position = start;
                    loop {
                        let room = 1 + reads.below(500);
                        match read_counted(&mut &*stream, position, room) {
                            Ok(0) => return (position, true),
                            Ok(count) => position += count,
                            Err(error) => {
                                assert_eq!(Some(libc::ECANCELED), error.raw_os_error());
                                return (position, false);
                            }
                        }
                    }
                });
                random.pause();
                yield_now();
                reader.cancel();
                if let Ok((end, is_last)) = reader.join() {
                    position = end;
                    if is_last {
                        break;
                    }
                }
            }
            writer.join().unwrap();
            assert_eq!(total, position);
        });
    });
}

#[test]
fn requests_reach_no_later_task_of_the_same_coroutine() {
    on_every_runtime(|| {
        rounds(|seed| {
            let mut random = Random::new(seed);
            let mut ended: Vec<TaskHandle> = Vec::new();
            for _ in 0..50 {
                let (mut one, mut other) = UnixStream::pair().unwrap();
                let innocent = spawn(move || {
                    let mut byte = [0];
                    yield_now();
                    one.read_exact(&mut byte).unwrap();
                    thread::sleep(Duration::from_micros(20));
                    yield_now();
                    assert!(!is_cancelled());
                    byte[0]
                });
                let short = spawn(yield_now);
                ended.push(short.task());
                if random.below(2) == 0 {
                    short.cancel();
                }
                let ended = ended.clone();
                let canceller = spawn(move || ended.iter().filter(|task| task.cancel()).count());
                random.pause();
                other.write_all(&[3]).unwrap();
                assert_eq!(3, innocent.join().unwrap());
                // At most the last one, which may be alive.
                assert!(canceller.join().unwrap() <= 1);
                if let Err(error) = short.join() {
                    assert!(error.is_cancelled());
                }
            }
        });
    });
}

#[test]
fn many_who_cancel_the_same_task_are_told_once() {
    on_every_runtime(|| {
        rounds(|seed| {
            let mut random = Random::new(seed);
            let victim = spawn(|| {
                loop {
                    thread::sleep(Duration::from_secs(3600));
                    yield_now();
                }
            });
            let task = victim.task();
            let cancellers: Vec<_> = (0..4)
                .map(|_| {
                    let task = task.clone();
                    spawn(move || usize::from(task.cancel()))
                })
                .collect();
            random.pause();
            let told: usize = cancellers
                .into_iter()
                .map(|task| task.join().unwrap())
                .sum();
            assert_eq!(1, told);
            assert!(victim.join().unwrap_err().is_cancelled());
        });
    });
}

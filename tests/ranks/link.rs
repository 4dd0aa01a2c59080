//! Two network namespaces, joined by a link with a rate and a delay. The kernels of containers often lack the
//! module `netem`, so the packets pass through this process, which holds them back.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

/// The names of the namespaces, and the addresses in them.
pub(crate) const SPACES: [(&str, &str); 2] = [("bt-a", "10.99.7.1"), ("bt-b", "10.99.7.2")];
/// Bytes of a packet. Large ones take little time of the processors.
const MTU: usize = 60_000;

/// A link between two namespaces. They are removed with it.
pub(crate) struct Link {
    /// Bytes that went from the first namespace to the second.
    pub(crate) sent: Arc<AtomicU64>,
}

impl Link {
    /// Joins the namespaces by a link of `rate` bits per second in each direction, whose packets arrive after
    /// `delay`.
    pub(crate) fn new(rate: f64, delay: Duration) -> Self {
        remove();
        let [a, b] = SPACES.map(|(space, address)| {
            run(&["netns", "add", space]);
            let device = open(space);
            run(&["link", "set", space, "netns", space]);
            run(&["-n", space, "addr", "add", &format!("{address}/24"), "dev", space]);
            run(&[
                "-n",
                space,
                "link",
                "set",
                space,
                "mtu",
                &MTU.to_string(),
                "txqueuelen",
                "1000",
                "up",
            ]);
            run(&["-n", space, "link", "set", "lo", "up"]);
            device
        });
        let sent = Arc::new(AtomicU64::new(0));
        let back = Arc::new(AtomicU64::new(0));
        for (from, to, counter) in [(&a, &b, &sent), (&b, &a, &back)] {
            relay(
                from.try_clone().unwrap(),
                to.try_clone().unwrap(),
                (rate, delay),
                counter.clone(),
            );
        }
        Self { sent }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        remove();
    }
}

fn remove() {
    for (space, _) in SPACES {
        let _ = Command::new("ip").args(["netns", "del", space]).output();
    }
}

fn run(line: &[&str]) {
    let output = Command::new("ip").args(line).output().unwrap();
    assert!(output.status.success(), "ip {line:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A TUN device called `name`.
fn open(name: &str) -> File {
    let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the request is initialised, and the file is that of the TUN driver
    let status = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &request) };
    assert_eq!(status, 0, "{}", std::io::Error::last_os_error());
    file
}

/// A packet with the time of its arrival.
type Packet = (Instant, Vec<u8>);

/// Carries packets from one device to another. The threads end with the process.
fn relay(mut from: File, mut to: File, (rate, delay): (f64, Duration), counter: Arc<AtomicU64>) {
    let (packets, due) = sync_channel::<Packet>(256);
    thread::spawn(move || {
        let mut buffer = vec![0; 1 << 17];
        let mut free = Instant::now();
        while let Ok(size) = from.read(&mut buffer) {
            free = free.max(Instant::now()) + Duration::from_secs_f64(8.0 * size as f64 / rate);
            counter.fetch_add(size as u64, Ordering::Relaxed);
            if packets.send((free + delay, buffer[..size].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || {
        for (at, packet) in due {
            if let Some(wait) = at.checked_duration_since(Instant::now()) {
                thread::sleep(wait);
            }
            // the device is gone when the link is removed
            if to.write_all(&packet).is_err() {
                return;
            }
        }
    });
}

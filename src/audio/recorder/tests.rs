use std::fs;
use std::io::Cursor;
use std::sync::Mutex;
use std::sync::atomic::AtomicU32;

use super::*;
use crate::audio::wav::read_all;

const FRAME: usize = 160;
const TICK: Duration = Duration::from_millis(20);

#[expect(clippy::disallowed_methods, reason = "any instant will do: nothing here measures time")]
fn now() -> Instant {
    Instant::now()
}

/// A folder that is removed with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sipwire-recorder-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The channels of a finished file as hound reads them, so without our own tolerance.
fn channels(path: &Path) -> Vec<Vec<i16>> {
    let mut reader = hound::WavReader::open(path).unwrap();
    let mut channels = vec![vec![]; reader.spec().channels.into()];
    let count = channels.len();
    for (n, sample) in reader.samples::<i16>().enumerate() {
        channels[n % count].push(sample.unwrap());
    }
    channels
}

fn mix(sinks: RecorderSinks) -> RecorderSink {
    match sinks {
        RecorderSinks::Mix(sink) => sink,
        RecorderSinks::Stereo { .. } => panic!("a mix was asked for"),
    }
}

fn stereo(sinks: RecorderSinks) -> (RecorderSink, RecorderSink) {
    match sinks {
        RecorderSinks::Stereo { remote, local } => (remote, local),
        RecorderSinks::Mix(_) => panic!("stereo was asked for"),
    }
}

#[test]
fn a_mix_has_every_frame_and_ends_with_its_sink() {
    let (folder, now) = (Folder::new(), now());
    let path = folder.path("call.wav");
    let recorder = recorder(&path, RecordingLayout::Mix, 8_000, now).unwrap();
    let (mut sink, mut feed) = (mix(recorder.sinks), recorder.feed);
    assert_eq!(sink.rate(), 8_000);
    for n in 0..50u32 {
        sink.push(&[n as i16 + 1; FRAME], true, now);
        assert_eq!(feed.run(now + n * TICK).unwrap(), Status::Recording);
    }
    drop(sink);
    assert_eq!(feed.run(now).unwrap(), Status::Finished);
    assert_eq!(feed.run(now).unwrap(), Status::Finished);
    let expected: Vec<i16> = (1..=50).flat_map(|n| [n; FRAME]).collect();
    assert_eq!(channels(&path), [expected]);
    assert_eq!(feed.paths(), [path]);
    assert_eq!(recorder.control.lost_ms(), 0);
}

#[test]
fn stereo_has_remote_left_and_local_right_at_the_same_time() {
    let (folder, now) = (Folder::new(), now());
    let path = folder.path("call.wav");
    let recorder = recorder(&path, RecordingLayout::Stereo, 48_000, now).unwrap();
    let ((mut remote, mut local), mut feed) = (stereo(recorder.sinks), recorder.feed);
    for n in 1..=10 {
        remote.push(&[n; 960], true, now);
        if n == 5 {
            feed.run(now).unwrap(); // between the two channels of a tick
        }
        local.push(&[-n; 960], true, now);
        feed.run(now).unwrap();
    }
    drop(remote);
    assert_eq!(feed.run(now).unwrap(), Status::Recording, "the other one is still there");
    drop(local);
    assert_eq!(feed.run(now).unwrap(), Status::Finished);
    let expected: Vec<i16> = (1..=10).flat_map(|n| [n; 960]).collect();
    assert_eq!(channels(&path), [expected.clone(), expected.into_iter().map(|s| -s).collect()]);
}

#[test]
fn the_file_is_playable_after_each_flush_as_a_kill_would_leave_it() {
    let (folder, start) = (Folder::new(), now());
    let (path, copy) = (folder.path("call.wav"), folder.path("copy.wav"));
    let recorder = recorder(&path, RecordingLayout::Mix, 8_000, start).unwrap();
    let (mut sink, mut feed) = (mix(recorder.sinks), recorder.feed);
    fs::copy(&path, &copy).unwrap();
    assert_eq!(channels(&copy), [[0i16; 0]], "a header from the first moment");
    for n in 0..100u32 {
        let now = start + n * TICK;
        sink.push(&[7; FRAME], true, now);
        feed.run(now).unwrap();
        fs::copy(&path, &copy).unwrap();
        let strict = channels(&copy)[0].len();
        let behind = (n as usize + 1) * FRAME - strict;
        assert!(behind <= 8 * 250, "the header is {behind} samples behind after {n} frames");
        let (tolerant, _) = read_all(&fs::read(&copy).unwrap(), "copy").unwrap();
        assert!(tolerant.len() >= strict && tolerant.iter().all(|&s| s == 7));
    }
}

#[test]
fn a_pause_is_left_out() {
    let (folder, now) = (Folder::new(), now());
    let path = folder.path("call.wav");
    let recorder = recorder(&path, RecordingLayout::Stereo, 8_000, now).unwrap();
    let ((mut remote, mut local), mut feed) = (stereo(recorder.sinks), recorder.feed);
    for n in 1..=6 {
        match n {
            3 => recorder.control.pause(),
            5 => recorder.control.resume(),
            _ => {}
        }
        assert_eq!(recorder.control.is_paused(), n == 3 || n == 4);
        remote.push(&[n; FRAME], true, now);
        local.push(&[n; FRAME], true, now);
    }
    drop((remote, local));
    feed.run(now).unwrap();
    let expected: Vec<i16> = [1, 2, 5, 6].into_iter().flat_map(|n| [n; FRAME]).collect();
    assert_eq!(channels(&path), [expected.clone(), expected]);
}

#[test]
fn a_late_disk_costs_sound_but_not_time() {
    let (folder, now) = (Folder::new(), now());
    let path = folder.path("call.wav");
    let recorder = recorder(&path, RecordingLayout::Stereo, 8_000, now).unwrap();
    let ((mut remote, mut local), mut feed) = (stereo(recorder.sinks), recorder.feed);
    for n in 0..200 {
        remote.push(&[n + 1; FRAME], true, now);
        local.push(&[n + 1; FRAME], true, now);
    }
    assert_eq!(recorder.control.lost_ms(), 2 * (200 * 20 - u64::from(RING_MS)));
    feed.run(now).unwrap();
    for n in 200..300 {
        remote.push(&[n + 1; FRAME], true, now);
        local.push(&[n + 1; FRAME], true, now);
        feed.run(now).unwrap();
    }
    drop((remote, local));
    while feed.run(now).unwrap() != Status::Finished {}
    let expected: Vec<i16> = (1..=300).flat_map(|n| [if n <= 125 || n > 200 { n } else { 0 }; FRAME]).collect();
    assert!(channels(&path) == [expected.clone(), expected]);
}

#[test]
fn what_exists_is_not_overwritten_and_what_cannot_be_made_is_told() {
    let (folder, now) = (Folder::new(), now());
    let path = folder.path("call.wav");
    fs::write(&path, "precious").unwrap();
    let error = recorder(&path, RecordingLayout::Mix, 8_000, now).err().unwrap();
    assert_eq!(error.to_string(), format!("cannot create {}: File exists (os error 17)", path.display()));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    std::os::unix::fs::symlink(folder.path("elsewhere"), folder.path("link.wav")).unwrap();
    assert!(recorder(&folder.path("link.wav"), RecordingLayout::Mix, 8_000, now).is_err());
    assert!(!folder.path("elsewhere").exists());
    let error = recorder(&folder.path("no/call.wav"), RecordingLayout::Mix, 8_000, now).err().unwrap();
    assert!(error.to_string().ends_with("No such file or directory (os error 2)"), "{error}");
}

#[test]
fn a_long_recording_goes_on_in_a_new_file() {
    let (folder, now) = (Folder::new(), now());
    let path = folder.path("call.wav");
    fs::write(folder.path("call-3.wav"), "taken").unwrap();
    let recorder = recorder(&path, RecordingLayout::Mix, 8_000, now).unwrap();
    let (mut sink, mut feed) = (mix(recorder.sinks), recorder.feed);
    feed.max_data = 2 * 3 * FRAME as u64; // three frames a file
    for n in 1..=8 {
        sink.push(&[n; FRAME], true, now);
        feed.run(now).unwrap();
    }
    drop(sink);
    feed.run(now).unwrap();
    let parts = ["call.wav", "call-2.wav", "call-4.wav"].map(|name| folder.path(name));
    assert_eq!(feed.paths(), parts);
    let heard: Vec<i16> = parts.iter().flat_map(|part| channels(part).remove(0)).collect();
    assert_eq!(heard, (1..=8).flat_map(|n| [n; FRAME]).collect::<Vec<i16>>());
    assert_eq!(fs::read(folder.path("call-3.wav")).unwrap(), b"taken");
}

/// A disk with room for so many bytes, which can be looked at from outside.
#[derive(Clone)]
struct SmallDisk {
    bytes: Arc<Mutex<Cursor<Vec<u8>>>>,
    room: usize,
}

impl Write for SmallDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.bytes.lock().unwrap();
        let room = self.room.saturating_sub(disk.position() as usize);
        match bytes.len().min(room) {
            0 => Err(io::ErrorKind::StorageFull.into()),
            count => disk.write(&bytes[..count]),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SmallDisk {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.bytes.lock().unwrap().seek(to)
    }
}

#[test]
fn a_full_disk_is_told_once_and_the_file_stays_valid() {
    let start = now();
    let disk = SmallDisk { bytes: Arc::default(), room: 20_001 };
    let target = disk.clone();
    let create: Create = Box::new(move |_| {
        Ok(Opened { target: Box::new(target.clone()), sync: Box::new(|| panic!("nothing to finish")) })
    });
    let recorder = build(Path::new("/call.wav"), RecordingLayout::Stereo, 8_000, create, start).unwrap();
    let ((mut remote, mut local), mut feed) = (stereo(recorder.sinks), recorder.feed);
    let mut errors = vec![];
    for n in 0..100u32 {
        let now = start + n * TICK;
        remote.push(&[9; FRAME], true, now);
        local.push(&[9; FRAME], true, now);
        match feed.run(now) {
            Ok(Status::Recording) => assert!(errors.is_empty()),
            Ok(Status::Finished) => assert_eq!(errors.len(), 1),
            Err(error) => errors.push(error.to_string()),
        }
    }
    assert_eq!(errors, ["cannot write /call.wav: no storage space"]);
    assert_eq!(recorder.control.lost_ms(), 0, "the call goes on and nothing more is counted");
    let bytes = disk.bytes.lock().unwrap().get_ref().clone();
    let reader = hound::WavReader::new(Cursor::new(&bytes)).unwrap();
    let frames = reader.duration() as usize;
    assert!(frames * 4 + 44 <= bytes.len() && frames >= (20_001 - 44) / 4 - 8 * 250, "{frames} frames");
    assert!(reader.into_samples::<i16>().all(|sample| sample.unwrap() == 9));
}

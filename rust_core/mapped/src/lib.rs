//! A file that is memory: its room is taken beforehand, nobody else has it open here, and it is read and written as atomic
//! words, so that whoever uses it needs no unsafe code.
//!
//! What was stored stands in the file when this process dies at any moment, since the pages are the system's own. What
//! `sync` made durable stands there when the machine does.
#![cfg_attr(test, allow(clippy::unwrap_used))]

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
    mm::{MapFlags, ProtFlags, mmap, munmap},
};
use std::{
    fmt,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    num::NonZeroUsize,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    ptr::{NonNull, null_mut},
    sync::atomic::AtomicU64,
};

/// Of every system that this runs on a page is a divisor of it.
pub const UNIT: usize = 64 * 1024;
const WORD: usize = size_of::<AtomicU64>();
/// Written at once where a file system can't take room by a word.
const CHUNK: usize = 1024 * 1024;

/// A mapped file of whole units.
pub struct Mapped {
    file: File,
    start: NonNull<AtomicU64>,
    bytes: NonZeroUsize,
}

// SAFETY: the map belongs to the process, not to a thread, and is reached as shared atomics only.
#[expect(unsafe_code, reason = "a raw pointer is not `Send` by itself")]
unsafe impl Send for Mapped {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a raw pointer is not `Sync` by itself")]
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Opens, or makes with mode 0600, locks, and maps. A file that has some length keeps it; a new or an empty one gets
    /// `bytes`, rounded up to whole units, of zeros. The error is one sentence's end: what of it failed and why.
    pub fn open(path: &Path, bytes: usize) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            // A pipe or a device of that name would hold us up, or worse.
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(path)?;
        let status = file.metadata()?;
        if !status.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("it is in use by another process"),
            TryLockError::Error(error) => error,
        })?;
        let found = usize::try_from(status.len()).map_err(|_| io::Error::other("it is too large"))?;
        let wanted = if found == 0 { bytes.max(1).next_multiple_of(UNIT) } else { found };
        let Some(length) = NonZeroUsize::new(wanted).filter(|length| length.get() % UNIT == 0) else {
            return Err(io::Error::other(format!("its length of {found} bytes is none that a ring has")));
        };
        // A page without a block behind it is a death by SIGBUS once the disk is full.
        take_room(&file, found, length.get())?;
        file.sync_all()?;
        let start = map(&file, length)?;
        Ok(Self { file, start, bytes: length })
    }

    /// The file's content.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `start` is the page-aligned start of a map of `bytes` bytes, which is a multiple of `UNIT` and lives as
        // long as `self`; every bit pattern is an `AtomicU64`; nobody of this process reaches it but through here.
        // Another process might, which is why these are atomics. It is the lock's and the mode's part that none does.
        #[expect(unsafe_code, reason = "the map as a slice")]
        unsafe {
            std::slice::from_raw_parts(self.start.as_ptr(), self.bytes.get() / WORD)
        }
    }

    /// Lets others have the file, though it stays mapped here as long as `self` lives: nothing may be stored any more.
    pub fn unlock(&self) {
        // What fails here ends with the descriptor.
        let _ = self.file.unlock();
    }

    /// Lets the memory go that the pages have here. What is stored stays, as pages of the file; whoever reaches it next pays
    /// for finding them again. Linux alone has advice that says just this; elsewhere the memory stays taken.
    pub fn rest(&self) {
        #[cfg(target_os = "linux")]
        {
            use rustix::mm::{Advice, madvise};
            // SAFETY: the map was made by `map` with this length and is shared, so its pages are the file's own: nothing of
            // them is lost (madvise(2), MADV_DONTNEED of a shared mapping), and they are found again when they are reached.
            #[expect(unsafe_code, reason = "advice on the map")]
            let advised = unsafe { madvise(self.start.as_ptr().cast(), self.bytes.get(), Advice::LinuxDontNeed) };
            // Memory that is locked stays, and that is all.
            let _ = advised;
        }
    }

    /// Makes durable what was stored before the call. May take as long as the disk does.
    pub fn sync(&self) -> io::Result<()> {
        // The pages of a shared map are those of the file. (So POSIX asks of msync alone; Linux and the BSDs have one cache.)
        self.file.sync_data()
    }
}

impl fmt::Debug for Mapped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapped").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the map was made by `map` with this length, and no slice of it outlives `self`.
        #[expect(unsafe_code, reason = "the end of the map")]
        let unmapped = unsafe { munmap(self.start.as_ptr().cast(), self.bytes.get()) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Blocks for the whole file; what stands in it stays.
fn take_room(file: &File, found: usize, wanted: usize) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, wanted as u64) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) if found < wanted => write_zeros(file, wanted),
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        other => Ok(other?),
    }
}

/// For file systems that can't take room otherwise.
fn write_zeros(mut file: &File, wanted: usize) -> io::Result<()> {
    let zeros = vec![0; CHUNK];
    let mut left = wanted;
    while left > 0 {
        let chunk = zeros.get(..left.min(CHUNK)).unwrap_or_default();
        file.write_all(chunk)?;
        left -= chunk.len();
    }
    Ok(())
}

fn map(file: &File, length: NonZeroUsize) -> io::Result<NonNull<AtomicU64>> {
    // SAFETY: the system chooses a free place, so nothing of ours is mapped over.
    #[expect(unsafe_code, reason = "the map itself")]
    let start =
        unsafe { mmap(null_mut(), length.get(), ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0) }?;
    NonNull::new(start.cast()).ok_or_else(|| io::Error::other("it was mapped at no address"))
}

#[cfg(test)]
mod tests {
    use super::{Mapped, UNIT};
    use std::{fs, os::unix::fs::MetadataExt, sync::atomic::Ordering};

    #[test]
    fn what_was_stored_stands_in_the_file_and_has_its_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ring");
        let mapped = Mapped::open(&path, UNIT + 1).unwrap();
        assert_eq!(mapped.words().len() * 8, 2 * UNIT);
        mapped.words().last().unwrap().store(0x0807_0605_0403_0201, Ordering::Release);
        mapped.sync().unwrap();
        let status = fs::metadata(&path).unwrap();
        assert_eq!(status.mode() & 0o777, 0o600);
        assert!(status.blocks() * 512 >= 2 * UNIT as u64);
        assert_eq!(fs::read(&path).unwrap().get(2 * UNIT - 8..).unwrap(), [1, 2, 3, 4, 5, 6, 7, 8]);
        drop(mapped);
        let again = Mapped::open(&path, 9 * UNIT).unwrap();
        assert_eq!(again.words().len() * 8, 2 * UNIT, "a file keeps its length");
        assert_eq!(again.words().last().unwrap().load(Ordering::Acquire), 0x0807_0605_0403_0201);
    }

    #[test]
    fn what_was_stored_stands_there_after_a_rest() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ring");
        let mapped = Mapped::open(&path, 4 * UNIT).unwrap();
        for (number, word) in mapped.words().iter().enumerate() {
            word.store(number as u64, Ordering::Relaxed);
        }
        mapped.rest();
        let stands = mapped.words().iter().enumerate().all(|(at, word)| word.load(Ordering::Relaxed) == at as u64);
        assert!(stands);
        mapped.rest();
        assert_eq!(fs::read(&path).unwrap().get(8..16).unwrap(), 1_u64.to_le_bytes());
    }

    #[test]
    fn nobody_else_may_have_it_and_it_must_be_a_file_of_whole_units() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ring");
        let mapped = Mapped::open(&path, UNIT).unwrap();
        assert!(Mapped::open(&path, UNIT).unwrap_err().to_string().contains("in use"));
        mapped.unlock();
        assert!(Mapped::open(&path, UNIT).is_ok());
        drop(mapped);
        assert!(Mapped::open(&path, UNIT).is_ok());
        assert!(Mapped::open(directory.path(), UNIT).is_err());
        let foreign = directory.path().join("foreign");
        fs::write(&foreign, b"x").unwrap();
        assert!(Mapped::open(&foreign, UNIT).unwrap_err().to_string().contains("length of 1 bytes"));
        assert_eq!(fs::read(&foreign).unwrap(), b"x");
        assert!(Mapped::open(&directory.path().join("none/ring"), UNIT).is_err());
        assert!(Mapped::open(&directory.path().join("vast"), usize::MAX / 2).is_err());
    }
}

//! What the process keeps of memory that it has no use for.

/// From how many bytes on a block of memory is the operating system's again as soon as it is
/// freed.
const LARGE: i32 = 1024 * 1024;

/// Has the allocator give large blocks back when they are freed. To be called once, at the
/// start of a process that loads plugins.
///
/// glibc begins like that and unlearns it: each large block that is freed raises the size from
/// which on it does so, up to 32 MiB. A plugin in Python is 19 MiB, its machine code 35, and
/// after it was loaded the daemon would keep 75 MiB for nothing. Other allocators do as they
/// do.
pub fn give_large_blocks_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        #[expect(unsafe_code, reason = "a setting of the C library")]
        // SAFETY: it sets a number, under the allocator's own lock.
        let set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE) };
        if set == 0 {
            tracing::debug!("the allocator keeps large blocks of memory");
        }
    }
}

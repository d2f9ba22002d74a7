//! Git LFS pointers: the small text files that stand in a clone for files that were not fetched.

/// How a pointer begins.
pub const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Whether a file that begins with `beginning` is a pointer.
pub fn is_lfs_pointer(beginning: &[u8]) -> bool {
    beginning.starts_with(LFS_POINTER)
}

/// What is wrong with such a file, and what to do.
pub fn lfs_reason() -> String {
    "this is a Git LFS pointer, which stands for the file itself: fetch that by `git lfs pull` in the clone"
        .into()
}

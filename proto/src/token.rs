//! Comparing run tokens.

/// Whether two tokens are equal, in time that depends on their lengths alone.
pub fn same_token(left: &str, right: &str) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let difference = left.bytes().zip(right.bytes()).fold(0u8, |seen, (l, r)| seen | (l ^ r));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::same_token;

    #[test]
    fn only_equal_tokens_are_the_same() {
        assert!(same_token("", "") && same_token("abc", "abc"));
        assert!(!same_token("abc", "abd") && !same_token("abc", "ab") && !same_token("", "a"));
    }
}

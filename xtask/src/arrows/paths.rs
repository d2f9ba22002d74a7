//! Paths in code, macros' arguments among them: `a::b::c`, as the tokens stand.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Every path of two names or more, without what `#[cfg(test)]` keeps for tests.
pub(super) fn paths(code: TokenStream) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    collect(code, &mut found);
    found
}

fn collect(code: TokenStream, found: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = code.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        if is_for_tests(&tokens[at..]) {
            at = after_item(&tokens, at + 2);
            continue;
        }
        match &tokens[at] {
            TokenTree::Group(group) => {
                collect(group.stream(), found);
                at += 1;
            }
            // `pub(in a::b)` says who may see something and uses nothing.
            TokenTree::Ident(word) if word == "pub" => {
                at += 1 + usize::from(is_parenthesised(tokens.get(at + 1)));
            }
            TokenTree::Ident(first) => {
                let mut path = vec![first.to_string()];
                at += 1;
                while let (true, Some(TokenTree::Ident(next))) = (colons(&tokens, at), tokens.get(at + 2)) {
                    path.push(next.to_string());
                    at += 3;
                }
                // `use a::{b, c}` in a function names the module `a`.
                if path.len() > 1 || colons(&tokens, at) {
                    found.push(path);
                }
            }
            _ => at += 1,
        }
    }
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}

fn is_parenthesised(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis)
}

fn colons(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

fn is_for_tests(tokens: &[TokenTree]) -> bool {
    is_punct(tokens.first(), '#')
        && matches!(tokens.get(1), Some(TokenTree::Group(group)) if group.to_string().replace(' ', "") == "[cfg(test)]")
}

/// The place after the item, statement or field that begins at `at`.
fn after_item(tokens: &[TokenTree], at: usize) -> usize {
    let ends = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => [';', ','].contains(&punct.as_char()),
        _ => false,
    };
    tokens[at..].iter().position(ends).map_or(tokens.len(), |length| at + length + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_code_and_macros_but_not_in_tests() {
        let code = "fn f() { a::b::c(); x.y; log!(\"{}\", crate::d::E); use super::g::{H, I}; single; }
            #[cfg(test)] fn g() { t::u(); } struct S { #[cfg(test)] x: v::W, pub(in a::b) z: y::Z }";
        let found: Vec<String> =
            paths(code.parse().unwrap()).into_iter().map(|path| path.join("::")).collect();
        assert_eq!(found, ["a::b::c", "crate::d::E", "super::g", "y::Z"]);
    }
}

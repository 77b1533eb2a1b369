//! The arguments of an attribute: `key = value, ..`.
//!
//! [`KEYS`] is the only list of them. It decides what is accepted, what an
//! error names, and what is generated.

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::parse::{ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, Ident, Lit, Path, Token, parse_quote};

/// How the value of a key is read, and what it turns into.
#[derive(Clone, Copy)]
enum Kind {
    /// An expression, passed to the method of `Config` that has the key's name.
    Method,
    /// The name of a driver as a string, or an expression.
    Driver,
    /// `true` or `false`, for a method that is unsafe.
    SharedTls,
    /// The path of the facade crate.
    Crate,
}

const KEYS: &[(&str, Kind)] = &[
    ("event_loop_size", Kind::Method),
    ("stack_size", Kind::Method),
    ("min_size", Kind::Method),
    ("max_size", Kind::Method),
    ("keep_alive_time", Kind::Method),
    ("hook", Kind::Method),
    ("driver", Kind::Driver),
    ("preemptive", Kind::Method),
    ("time_slice", Kind::Method),
    ("take_over", Kind::Method),
    ("shutdown_timeout", Kind::Method),
    ("unsafe_shared_tls", Kind::SharedTls),
    ("crate", Kind::Crate),
];

/// What `driver` may say, and the variant of `Driver` that it means.
const DRIVERS: &[(&str, &str)] = &[("io_uring", "IoUring"), ("epoll", "Epoll")];

/// The arguments of one attribute.
pub(crate) struct Settings {
    /// Where the facade crate is found.
    pub(crate) facade: Path,
    calls: Vec<Call>,
}

/// One step of building the configuration.
enum Call {
    Method(Ident, Box<Expr>),
    DriverVariant(Ident),
    SharedTls(Span),
}

impl Settings {
    /// Reads the arguments of an attribute. All errors are reported at once.
    pub(crate) fn parse(arguments: TokenStream) -> syn::Result<Self> {
        Self::read.parse2(arguments)
    }

    fn read(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut settings = Self {
            facade: parse_quote!(::open_coroutine),
            calls: Vec::new(),
        };
        let mut seen: Vec<Ident> = Vec::new();
        let mut errors: Option<Error> = None;
        while !input.is_empty() {
            let key = input.call(Ident::parse_any)?;
            let outcome = find(&key).and_then(|kind| {
                if seen.contains(&key) {
                    return Err(Error::new(key.span(), format!("`{key}` is set twice")));
                }
                seen.push(key.clone());
                Ok(kind)
            });
            let outcome = match outcome {
                Ok(kind) => settings.value(kind, &key, input),
                Err(error) => skip_value(input).and(Err(error)),
            };
            if let Err(error) = outcome {
                match &mut errors {
                    None => errors = Some(error),
                    Some(errors) => errors.combine(error),
                }
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        errors.map_or(Ok(settings), Err)
    }

    /// Reads `= value` of `key`.
    fn value(&mut self, kind: Kind, key: &Ident, input: ParseStream<'_>) -> syn::Result<()> {
        if !input.peek(Token![=]) || input.peek(Token![==]) {
            return Err(Error::new(
                key.span(),
                format!("`{key}` needs a value: `{key} = ..`"),
            ));
        }
        let equals: Token![=] = input.parse()?;
        if input.is_empty() || input.peek(Token![,]) {
            return Err(Error::new(
                equals.span,
                format!("the value of `{key}` is missing"),
            ));
        }
        if matches!(kind, Kind::Crate) {
            self.facade = Path::parse_mod_style(input)?;
            return Ok(());
        }
        let value: Expr = input.parse()?;
        match kind {
            Kind::Method => self.calls.push(Call::Method(key.clone(), value.into())),
            Kind::Driver => self.calls.push(driver(key, value)?),
            Kind::SharedTls => {
                if boolean(key, &value)? {
                    self.calls.push(Call::SharedTls(value.span()));
                }
            }
            Kind::Crate => unreachable!("read above"),
        }
        Ok(())
    }

    /// The expression that builds the configuration.
    pub(crate) fn config(&self) -> TokenStream {
        let facade = &self.facade;
        let start = quote!(#facade::Config::default());
        self.calls.iter().fold(start, |config, call| match call {
            Call::Method(method, value) => {
                quote_spanned!(value.span()=> #config.#method(#value))
            }
            Call::DriverVariant(variant) => quote!(#config.driver(#facade::Driver::#variant)),
            // Whoever writes `unsafe_shared_tls = true` takes the block's duty.
            Call::SharedTls(span) => {
                quote_spanned!(*span=> unsafe { #config.hook_with_shared_tls() })
            }
        })
    }
}

/// What `key` is, or an error that helps to find the right one.
fn find(key: &Ident) -> syn::Result<Kind> {
    let name = key.to_string();
    if let Some((_, kind)) = KEYS.iter().find(|(known, _)| *known == name) {
        return Ok(*kind);
    }
    let names: Vec<String> = KEYS.iter().map(|(known, _)| format!("`{known}`")).collect();
    let hint = nearest(&name).map_or(String::new(), |known| format!("; did you mean `{known}`?"));
    let message = format!(
        "unknown key `{name}`{hint}\nvalid keys are {}",
        names.join(", ")
    );
    Err(Error::new(key.span(), message))
}

/// The key that `name` was most likely meant to be.
fn nearest(name: &str) -> Option<&'static str> {
    let by_distance = KEYS
        .iter()
        .map(|(known, _)| (distance(name, known), *known));
    let (changes, known) = by_distance.min()?;
    (changes <= known.len().max(name.len()) / 3).then_some(known)
}

/// How many characters must be inserted, removed or replaced to turn `from`
/// into `to`.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, a) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = line + 1;
        for (column, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

/// Skips `= value` of a key that is in error, to find further errors after it.
fn skip_value(input: ParseStream<'_>) -> syn::Result<()> {
    if input.peek(Token![=]) {
        input.parse::<Token![=]>()?;
        input.parse::<Expr>()?;
    }
    Ok(())
}

fn driver(key: &Ident, value: Expr) -> syn::Result<Call> {
    let Expr::Lit(ExprLit {
        lit: Lit::Str(name),
        ..
    }) = &value
    else {
        return Ok(Call::Method(key.clone(), value.into()));
    };
    let text = name.value();
    match DRIVERS.iter().find(|(known, _)| *known == text) {
        Some((_, variant)) => Ok(Call::DriverVariant(Ident::new(variant, name.span()))),
        None => {
            let names: Vec<String> = DRIVERS
                .iter()
                .map(|(known, _)| format!("{known:?}"))
                .collect();
            let message = format!("unknown driver {text:?}; it can be {}", names.join(" or "));
            Err(Error::new(name.span(), message))
        }
    }
}

fn boolean(key: &Ident, value: &Expr) -> syn::Result<bool> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Bool(value),
            ..
        }) => Ok(value.value),
        _ => Err(Error::new(
            value.span(),
            format!("`{key}` must be `true` or `false`"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The configuration that `arguments` build.
    fn config(arguments: &str) -> String {
        let settings = Settings::parse(arguments.parse().unwrap()).unwrap();
        settings.config().to_string().replace(' ', "")
    }

    /// The errors of `arguments`, with the column each one points to.
    fn errors(arguments: &str) -> Vec<(usize, String)> {
        let Err(error) = Settings::parse(arguments.parse().unwrap()) else {
            panic!("{arguments} is accepted");
        };
        let place = |error: Error| (error.span().start().column, error.to_string());
        error.into_iter().map(place).collect()
    }

    #[test]
    fn no_arguments_are_the_default_configuration() {
        assert_eq!("::open_coroutine::Config::default()", config(""));
    }

    #[test]
    fn values_are_expressions_and_keep_their_order() {
        assert_eq!(
            "::open_coroutine::Config::default().stack_size(64*KIB).event_loop_size(2)",
            config("stack_size = 64 * KIB, event_loop_size = 2,")
        );
    }

    #[test]
    fn every_key_is_accepted() {
        for (key, kind) in KEYS {
            let value = match kind {
                Kind::Method => "value",
                Kind::Driver => "\"epoll\"",
                Kind::SharedTls => "true",
                Kind::Crate => "renamed::path",
            };
            config(&format!("{key} = {value}"));
        }
    }

    #[test]
    fn a_driver_is_a_name_or_an_expression() {
        let start = "::open_coroutine::Config::default()";
        assert_eq!(
            format!("{start}.driver(::open_coroutine::Driver::IoUring)"),
            config("driver = \"io_uring\"")
        );
        assert_eq!(
            format!("{start}.driver(choose())"),
            config("driver = choose()")
        );
    }

    #[test]
    fn shared_tls_is_an_unsafe_call_only_when_it_is_true() {
        assert_eq!(
            "unsafe{::open_coroutine::Config::default().hook_with_shared_tls()}",
            config("unsafe_shared_tls = true")
        );
        assert_eq!(config(""), config("unsafe_shared_tls = false"));
    }

    #[test]
    fn the_crate_can_have_another_path() {
        assert_eq!(
            "a::b::Config::default().hook(false)",
            config("hook = false, crate = a::b")
        );
    }

    #[test]
    fn an_unknown_key_names_the_valid_ones_and_the_nearest() {
        let found = errors("stak_size = 1");
        let (column, message) = &found[0];
        assert_eq!(0, *column);
        assert!(message.starts_with("unknown key `stak_size`; did you mean `stack_size`?"));
        for (key, _) in KEYS {
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
    }

    #[test]
    fn nothing_is_suggested_for_a_key_that_is_like_no_other() {
        assert!(!errors("colour = 1")[0].1.contains("did you mean"));
    }

    #[test]
    fn errors_point_to_what_is_wrong() {
        let cases = [
            ("hook = true, hook = false", 13, "`hook` is set twice"),
            ("hook", 0, "`hook` needs a value: `hook = ..`"),
            ("hook, min_size = 1", 0, "`hook` needs a value: `hook = ..`"),
            ("hook =", 5, "the value of `hook` is missing"),
            ("hook = , min_size = 1", 5, "the value of `hook` is missing"),
            (
                "driver = \"kqueue\"",
                9,
                "unknown driver \"kqueue\"; it can be \"io_uring\" or \"epoll\"",
            ),
            (
                "unsafe_shared_tls = yes()",
                20,
                "`unsafe_shared_tls` must be `true` or `false`",
            ),
            ("min_size = 1 hook = true", 13, "expected `,`"),
        ];
        for (arguments, column, message) in cases {
            assert_eq!(
                vec![(column, message.to_owned())],
                errors(arguments),
                "{arguments}"
            );
        }
    }

    #[test]
    fn all_errors_are_reported_at_once() {
        let columns: Vec<usize> = errors("a = 1, hook, b = 2")
            .iter()
            .map(|(at, _)| *at)
            .collect();
        assert_eq!(vec![0, 7, 13], columns);
    }
}

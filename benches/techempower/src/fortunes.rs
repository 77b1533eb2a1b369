//! The page of fortunes.

use crate::model::Fortune;

const HEAD: &str = "<!DOCTYPE html><html><head><title>Fortunes</title></head><body><table>\
    <tr><th>id</th><th>message</th></tr>";
const TAIL: &str = "</table></body></html>";

/// The page with all that the table has, and one more, by message.
pub fn page(mut fortunes: Vec<Fortune>) -> String {
    fortunes.push(Fortune {
        id: 0,
        message: "Additional fortune added at request time.".to_owned(),
    });
    fortunes.sort_unstable_by(|a, b| a.message.cmp(&b.message));
    let mut page = String::with_capacity(2048);
    page.push_str(HEAD);
    for fortune in fortunes {
        page.push_str("<tr><td>");
        page.push_str(&fortune.id.to_string());
        page.push_str("</td><td>");
        push_escaped(&mut page, &fortune.message);
        page.push_str("</td></tr>");
    }
    page.push_str(TAIL);
    page
}

/// Appends `text` so that HTML shows it as it is.
fn push_escaped(page: &mut String, text: &str) {
    let mut plain = 0;
    for (place, character) in text.bytes().enumerate() {
        let entity = match character {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => "&quot;",
            b'\'' => "&#39;",
            _ => continue,
        };
        page.push_str(&text[plain..place]);
        page.push_str(entity);
        plain = place + 1;
    }
    page.push_str(&text[plain..]);
}

#[cfg(test)]
mod tests {
    use super::page;
    use crate::model::Fortune;

    #[test]
    fn messages_are_sorted_and_escaped() {
        let fortunes = [(1, "<b>\"é\" & 'x'</b>"), (2, "Zzz")].map(|(id, message)| Fortune {
            id,
            message: message.to_owned(),
        });
        let page = page(Vec::from(fortunes));
        let rows = "<tr><td>1</td><td>&lt;b&gt;&quot;é&quot; &amp; &#39;x&#39;&lt;/b&gt;</td></tr>\
            <tr><td>0</td><td>Additional fortune added at request time.</td></tr>\
            <tr><td>2</td><td>Zzz</td></tr></table>";
        assert!(page.contains(rows), "{page}");
    }
}

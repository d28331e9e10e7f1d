/**
 * The only door through which HTML made from a model's words gets into the page.
 *
 * Models repeat what strangers wrote, so their words are hostile: no script, no style, no form, no foreign picture (its
 * address could carry the chat away), nothing that loads by itself. The page's Content-Security-Policy forbids the same
 * once more, and with Trusted Types the browser lets no other way of writing HTML exist.
 */
import DOMPurify from 'dompurify'

const TAGS = [
  'a', 'blockquote', 'br', 'code', 'del', 'em', 'h3', 'h4', 'h5', 'h6', 'hr', 'img', 'li', 'ol', 'p', 'pre', 'span',
  'strong', 'sub', 'sup', 'table', 'tbody', 'td', 'th', 'thead', 'tr', 'ul',
] // prettier-ignore
const ATTRIBUTES = ['href', 'src', 'alt', 'title', 'align', 'start', 'class', 'dir']

const purifier = DOMPurify(window)

purifier.addHook('uponSanitizeAttribute', (element, data) => {
  if (data.attrName === 'src') data.keepAttr = /^data:image\/(?:png|jpeg|gif|webp);base64,/.test(data.attrValue)
  else if (data.attrName === 'href') data.keepAttr = /^(?:https?:\/\/|mailto:)/i.test(data.attrValue)
  // Only our own renderer's classes: a model that could borrow the page's could draw a false button.
  else if (data.attrName === 'class') {
    data.keepAttr =
      /^(?:CODE|SPAN)$/.test(element.nodeName) &&
      /^(?:hljs-[\w-]+(?: \w+_)*|language-[\w+#.-]+)$/.test(data.attrValue)
  }
})
purifier.addHook('afterSanitizeAttributes', (element) => {
  if (element.nodeName === 'A' && element.hasAttribute('href')) {
    element.setAttribute('target', '_blank')
    element.setAttribute('rel', 'noopener noreferrer nofollow')
  }
  if (element.nodeName === 'IMG' && !element.hasAttribute('src')) element.remove()
})

/** What is left of `html` when everything that could do something is gone. */
export function clean(html: string): DocumentFragment {
  return purifier.sanitize(html, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  })
}

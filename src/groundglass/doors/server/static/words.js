// What every part of the page shares: the language, numbers in words, small helpers. Every text goes in as text.

export const byId = (id) => document.getElementById(id);
export const language = document.documentElement.lang;

const messages = language === "en" ? {} : await (await fetch(`/static/${language}.json`)).json();

// An English sentence in the language of the page, with its {names} replaced by the values.
export const t = (text, values = {}) => (messages[text] ?? text).replace(/\{(\w+)\}/g, (_, name) => values[name]);

// A number with so many digits behind the decimal mark of the language.
export const number = (value, digits) => Number(value).toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", "−");

// A probability for people; never 0 % or 100 %, which no model can know.
export const percent = (p) => (p < 0.001 ? t("< 0.1 %") : p > 0.999 ? t("> 99.9 %") : `${number(100 * p, 1)} %`);

// A share of lung; what is there is never rounded to none.
export const ofLung = (share) => (share > 0 && share < 0.01 ? t("less than 1 %") : `${number(100 * share, 0)} %`);

export const upper = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// A new element with properties and children.
export function made(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// A text in the element with this id, which is hidden where there is none.
export function tell(id, text) {
  byId(id).textContent = text || "";
  byId(id).hidden = !text;
}

// Offer bytes as a download.
export function save(name, type, content) {
  const link = made("a", { href: URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// Texts by language: one file each, with the same keys.

export const LANGUAGES = { en: "English", ko: "한국어" };
const STORED = "convoy.language";

let texts = {};

export async function loadTexts(language) {
  const response = await fetch(`/page/i18n/${language}.json`);
  texts = await response.json();
  document.documentElement.lang = language;
}

export function t(key, values = {}) {
  return texts[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

export function chosenLanguage() {
  const stored = localStorage.getItem(STORED);
  const wanted = [stored, ...navigator.languages.map((tag) => tag.slice(0, 2))];
  return wanted.find((language) => language in LANGUAGES) ?? "en";
}

export function chooseLanguage(language) {
  localStorage.setItem(STORED, language);
}

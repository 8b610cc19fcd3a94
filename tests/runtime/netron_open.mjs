// Opens what a Netron server serves with the loader of Netron's own pages and prints what it would draw, as JSON.
//
//     node netron_open.mjs FOLDER_OF_THE_PACKAGE URL
//
// The pages ask their host for little besides modules and files, so a browser's part is a few lines.
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';

const [root, url] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(`${root}/${name.replace('./', '')}.js`));
const [view, base] = [await load('view'), await load('base')];

const host = { version: '0', environment: () => null, event: () => {}, require: load };
const context = {
    identifier: decodeURIComponent(new URL(url).pathname.split('/').pop()),
    stream: new base.BinaryStream(new Uint8Array(await (await fetch(url)).arrayBuffer())),
    asset: async (file) => readFileSync(`${root}/${file}`, 'utf-8'),
    require: load,
    error: (error) => { throw error; },
};
const model = await new view.ModelFactoryService(host).open(context);
const [graph] = model.modules;
console.log(JSON.stringify({
    format: model.format,
    inputs: graph.inputs.map((port) => port.name),
    outputs: graph.outputs.map((port) => port.name),
    nodes: graph.nodes.map((node) => node.type.name),
    functions: model.functions.map((body) => [body.name, body.nodes.length]),
}));

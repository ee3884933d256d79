(component
  (component $inner
    (core module (memory 100000) (table 100000 funcref))
    (import "sentinel:plugin/docker@0.1.0" (instance (export "exec" (func)))))
  (core module (memory i64 1) (memory 1 (pagesize 1)) (func (param externref) (result v128) unreachable))
  (import "wasi:http/outgoing-handler@0.2.0" (instance))
  (import "a" (func)))

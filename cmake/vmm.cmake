# vmm_library(name SOURCES... [DEPENDS libs...]): one folder, one static library.
function(vmm_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_link_libraries(${name} PUBLIC ${ARG_DEPENDS})
endfunction()

# vmm_test(name SOURCES... DEPENDS libs...): a GoogleTest program, registered with CTest as one test named `name`.
# Pass SHARDS n to split a long program into n CTest entries.
function(vmm_test name)
  cmake_parse_arguments(ARG "" "SHARDS;TIMEOUT" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} GTest::gtest_main)
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 900)
  endif()
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT})
endfunction()

# vmm_fuzz(name SOURCES... DEPENDS libs...): a libFuzzer target; its corpus, where it has one, is tests/fuzz/corpus/<name>.
function(vmm_fuzz name)
  if(NOT VMM_FUZZ)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS})
endfunction()
